// Both kernels are bound by the bytes of the image-sized masks, and move them 16 at a time.
#include "common/cuda_utils.cuh"
#include "common/warp.cuh"
#include "masks/masks.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 256;

// Quotient and remainder; of small numbers in 32 bits, which is several times faster.
struct Division {
  int64_t quotient, remainder;
  __device__ Division(int64_t a, int64_t b) {
    if ((a | b) >> 32 == 0) {
      const uint32_t q = static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
      quotient = q, remainder = static_cast<uint32_t>(a) - q * static_cast<uint32_t>(b);
    } else {
      quotient = a / b, remainder = a - quotient * b;
    }
  }
};

template <class T, class S>
__device__ S as_stored(const PasteInput& in, T value) {
  if (sizeof(S) == 1) return static_cast<S>(value > static_cast<T>(in.threshold));
  if (sizeof(S) == 2)
    return static_cast<S>(in.dtype == DType::kFloat16 ? detail::float_to_half(static_cast<float>(value))
                                                      : detail::float_to_bfloat16(static_cast<float>(value)));
  return static_cast<S>(value);
}

// The value of mask i at (y, x) of the image, which is inside of p.
template <class T>
__device__ T pasted_value(const PasteInput& in, int64_t i, const Pasted& p, int64_t y, int64_t x) {
  const int64_t height = in.height + 2 * in.padding, width = in.width + 2 * in.padding;
  T wy, wx;
  const int64_t y1 = Resized<T>(p.y1, p.y2, height).low(y, &wy), y2 = min_of(y1 + 1, height - 1);
  const int64_t x1 = Resized<T>(p.x1, p.x2, width).low(x, &wx), x2 = min_of(x1 + 1, width - 1);
  const T left = blend(padded_value<T>(in, i, y1, x1), padded_value<T>(in, i, y2, x1), wy);
  const T right = blend(padded_value<T>(in, i, y1, x2), padded_value<T>(in, i, y2, x2), wy);
  return blend(left, right, wx);
}

// A thread writes 16 bytes of the output: so many pixels in a row, which can reach into the next row or mask.
template <class T, class S>
__global__ void __launch_bounds__(kThreads) paste_kernel(PasteInput in, int64_t total, S* out) {
  constexpr int kPixels = 16 / sizeof(S);
  const S outside = as_stored<T, S>(in, T(0));
  const int64_t step = int64_t(gridDim.x) * kThreads * kPixels;
  for (int64_t first = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kPixels; first < total; first += step) {
    const Division row(first, in.image_width), mask(row.quotient, in.image_height);
    int64_t x = row.remainder, y = mask.remainder, i = mask.quotient;
    Pasted p = pasted(in, i);
    const int m = static_cast<int>(min_of<int64_t>(kPixels, total - first));
    alignas(16) S pixels[kPixels];
    if (x + m <= in.image_width && (y < p.y1 || y > p.y2 || x > p.x2 || x + m <= p.x1)) {
#pragma unroll
      for (int k = 0; k < kPixels; ++k) pixels[k] = outside;
    } else {
#pragma unroll
      for (int k = 0; k < kPixels; ++k) {
        const bool inside = k < m && x >= p.x1 && x <= p.x2 && y >= p.y1 && y <= p.y2;
        pixels[k] = inside ? as_stored<T, S>(in, pasted_value<T>(in, i, p, y, x)) : outside;
        if (++x == in.image_width) {
          x = 0;
          if (++y == in.image_height) {
            y = 0;
            if (++i < in.boxes.count) p = pasted(in, i);
          }
        }
      }
    }
    if (m == kPixels && reinterpret_cast<uintptr_t>(out) % 16 == 0) {
      *reinterpret_cast<uint4*>(out + first) = *reinterpret_cast<const uint4*>(pixels);
    } else {
      for (int k = 0; k < m; ++k) out[first + k] = pixels[k];
    }
  }
}

template <class T, class S>
int paste_as(const PasteInput& in, void* out, void* stream) {
  const int64_t total = in.boxes.count * in.image_height * in.image_width;
  return launch(paste_kernel<T, S>, grid_x(blocks_of(total, kThreads * (16 / int64_t(sizeof(S))))), kThreads, stream,
                in, total, static_cast<S*>(out));
}

using Extent = long long;
constexpr int kChunks = 8;  // of 16 bytes, that a thread reads

// A thread says of one mask that no pixel was seen.
__global__ void clear_kernel(int64_t count, int64_t height, int64_t width, Extent* extents) {
  for (const int64_t i : grid_stride<kThreads>(count)) {
    Extent* e = extents + 4 * i;
    e[0] = width, e[1] = height, e[2] = e[3] = -1;
  }
}

struct Seen {
  int64_t width;
  Extent x1, y1, x2, y2;
  // Pixels `first` to `last` of the mask, of which these two are not 0; between them only where they share a row.
  __device__ bool add(int64_t first, int64_t last) {
    const Division a(first, width);
    if (a.remainder + (last - first) >= width) return false;
    const int64_t end = a.remainder + (last - first);
    x1 = min_of<Extent>(x1, a.remainder), x2 = max_of<Extent>(x2, end);
    y1 = min_of<Extent>(y1, a.quotient), y2 = max_of<Extent>(y2, a.quotient);
    return true;
  }
};

// Whether element k of 16 bytes is not 0.
__device__ bool is_set(const uint64_t (&words)[2], int k, int element) {
  const int bit = k * element * 8;
  const uint64_t ones = element == 8 ? ~uint64_t(0) : (uint64_t(1) << (element * 8)) - 1;
  return (words[bit / 64] >> (bit % 64) & ones) != 0;
}

// Block (x, y): a stretch of mask y, of which a thread reads kChunks times 16 bytes, aligned.
__global__ void __launch_bounds__(kThreads)
    extent_kernel(MaskBytes masks, int element, uint64_t truth, Extent* extents) {
  const int64_t pixels = masks.height * masks.width;
  for (int64_t i = blockIdx.y; i < masks.count; i += gridDim.y) {
    const char* begin = static_cast<const char*>(masks.data) + i * pixels * element;
    const char* end = begin + pixels * element;
    const char* aligned = begin - reinterpret_cast<uintptr_t>(begin) % 16;
    Seen seen{masks.width, masks.width, masks.height, -1, -1};
    for (int k = 0; k < kChunks; ++k) {
      const char* at = aligned + ((int64_t(blockIdx.x) * kChunks + k) * kThreads + threadIdx.x) * 16;
      if (at >= end) break;
      uint64_t words[2] = {0, 0};
      const int low = static_cast<int>(at < begin ? begin - at : 0);
      const int high = static_cast<int>(end - at < 16 ? end - at : 16);
      if (low == 0 && high == 16) {
        const uint4 v = *reinterpret_cast<const uint4*>(at);
        words[0] = v.x | uint64_t(v.y) << 32, words[1] = v.z | uint64_t(v.w) << 32;
      } else {
        for (int b = low; b < high; ++b) words[b / 8] |= uint64_t(static_cast<unsigned char>(at[b])) << (b % 8 * 8);
      }
      words[0] &= truth, words[1] &= truth;
      if ((words[0] | words[1]) == 0) continue;
      int first = 0, last = 16 / element - 1;
      while (!is_set(words, first, element)) ++first;
      while (!is_set(words, last, element)) --last;
      const int64_t pixel = (at - begin) / element;  // exact: both are multiples of the element
      if (!seen.add(pixel + first, pixel + last))
        for (int e = first; e <= last; ++e)
          if (is_set(words, e, element)) seen.add(pixel + e, pixel + e);
    }
    seen.x1 = warp_min(seen.x1), seen.y1 = warp_min(seen.y1);
    seen.x2 = warp_max(seen.x2), seen.y2 = warp_max(seen.y2);
    if (threadIdx.x % 32 == 0 && seen.x2 >= 0) {
      Extent* e = extents + 4 * i;
      atomicMin(e, seen.x1), atomicMin(e + 1, seen.y1), atomicMax(e + 2, seen.x2), atomicMax(e + 3, seen.y2);
    }
  }
}

// A thread per number.
__global__ void boxes_kernel(int64_t count, const Extent* extents, float* boxes) {
  for (const int64_t at : grid_stride<kThreads>(count * 4))
    boxes[at] = extents[at / 4 * 4 + 2] < 0 ? 0.0f : static_cast<float>(extents[at]);
}

}  // namespace

int paste_masks(const PasteInput& input, void* out, void* stream) {
  return with_compute_type(input.dtype, [&](auto t) {
    using T = decltype(t);
    if (input.has_threshold) return paste_as<T, uint8_t>(input, out, stream);
    if (sizeof(T) == 4 && size_of(input.dtype) == 2) return paste_as<T, uint16_t>(input, out, stream);
    return paste_as<T, T>(input, out, stream);
  });
}

size_t masks_to_boxes_workspace(int64_t count) { return static_cast<size_t>(count) * 4 * sizeof(Extent); }

int masks_to_boxes(const MaskBytes& masks, float* boxes, void* workspace, void* stream) {
  Extent* extents = static_cast<Extent*>(workspace);
  const int64_t element = size_of(masks.dtype), bytes = masks.height * masks.width * element;
  const unsigned blocks = grid_x(blocks_of(masks.count * 4, kThreads));
  BOXOPS_TRY(launch(clear_kernel, blocks, kThreads, stream, masks.count, masks.height, masks.width, extents));
  if (bytes > 0)  // 15 bytes more: a mask need not start at a multiple of 16
    BOXOPS_TRY(launch(extent_kernel, dim3(grid_x(blocks_of(bytes + 15, kThreads * 16 * kChunks)), grid_yz(masks.count)),
                      kThreads, stream, masks, static_cast<int>(element), truth_bits(masks.dtype), extents));
  return launch(boxes_kernel, blocks, kThreads, stream, masks.count, extents, boxes);
}

}  // namespace boxops::cuda
