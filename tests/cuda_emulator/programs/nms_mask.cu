// The measure of the emulator's speed: which of 4000 boxes overlap, in 64 x 64 tiles.
#include "programs/program.h"

namespace {

__host__ __device__ inline bool overlaps(float4 a, float4 b) {
  const float w = max(min(a.z, b.z) - max(a.x, b.x), 0.0f), h = max(min(a.w, b.w) - max(a.y, b.y), 0.0f);
  const float inter = w * h;
  return inter > 0.5f * ((a.z - a.x) * (a.w - a.y) + (b.z - b.x) * (b.w - b.y) - inter);
}

__global__ void __launch_bounds__(64) mask_kernel(const float4* boxes, int n, unsigned long long* mask) {
  __shared__ float4 columns[64];
  const int t = static_cast<int>(threadIdx.x), row = static_cast<int>(blockIdx.y) * 64 + t,
            first = static_cast<int>(blockIdx.x) * 64;
  if (first + t < n) columns[t] = boxes[first + t];
  __syncthreads();
  if (row >= n) return;
  unsigned long long word = 0;
  for (int c = 0; c < 64 && first + c < n; ++c)
    if (overlaps(boxes[row], columns[c])) word |= 1ull << c;
  mask[row * gridDim.x + blockIdx.x] = word;
}

PROGRAM(nms_mask) {
  const int n = 4000, words = (n + 63) / 64;
  std::vector<float4> boxes(n);
  unsigned state = 1;
  const auto random = [&] { return static_cast<float>((state = state * 1664525 + 1013904223) >> 8) / (1 << 24); };
  for (float4& b : boxes) {
    const float x = random() * 100, y = random() * 100;
    b = {x, y, x + random() * 20, y + random() * 20};
  }
  Device<float4> a(boxes);
  Device<unsigned long long> mask(static_cast<size_t>(n) * words);
  launch(mask_kernel, dim3(words, words), 64, a, n, mask);

  const std::vector<unsigned long long> got = mask.values();
  int wrong = 0;
  for (int r = 0; r < n; r += 39)  // some rows: the time is to be the kernel's
    for (int c = 0; c < n; ++c) wrong += overlaps(boxes[r], boxes[c]) != (got[r * words + c / 64] >> c % 64 & 1);
  return wrong;
}

// Many threads that never wait: 4096 blocks of 256.
__global__ void scale_kernel(const float* in, float* out) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = 2 * in[i];
}

PROGRAM(no_barriers) {
  std::vector<float> in(1 << 20, 3.0f);
  Device<float> a(in), out(in.size());
  launch(scale_kernel, 4096, 256, a, out);
  return count_differences(out.values(), std::vector<float>(in.size(), 6.0f));
}

}  // namespace
