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

constexpr int kChunks = 8;  // of 16 bytes of an image-sized mask, that a thread moves at most
constexpr int kEnoughBlocks = 1024;

// One mask, and where its values go in the image.
template <class T>
struct Paster {
  const PasteInput& in;
  int64_t i;
  Pasted p;
  Resized<T> rows, columns;
  uint64_t outside;  // what is stored for 0

  __device__ Paster(const PasteInput& in, int64_t i, const Pasted& p)
      : in(in),
        i(i),
        p(p),
        rows(p.y1, p.y2, in.height + 2 * in.padding),
        columns(p.x1, p.x2, in.width + 2 * in.padding),
        outside(stored(T(0))) {}

  // The bits of an element of the output.
  __device__ uint64_t stored(T value) const {
    if (in.has_threshold) return value > static_cast<T>(in.threshold);
    if (in.dtype == DType::kFloat16) return detail::float_to_half(static_cast<float>(value));
    if (in.dtype == DType::kBFloat16) return detail::float_to_bfloat16(static_cast<float>(value));
    if constexpr (sizeof(T) == 4) return detail::bits_as<uint32_t>(value);
    else return detail::bits_as<uint64_t>(value);
  }

  // A row of the padded mask; not `real`: padding.
  struct Line {
    bool real;
    int64_t at;
  };
  __device__ Line line(int64_t y) const {
    y -= in.padding;
    return {y >= 0 && y < in.height, i * in.mask_stride + y * in.row_stride};
  }
  __device__ T element_of(const Line& row, int64_t x) const {
    x -= in.padding;
    if (!row.real || x < 0 || x >= in.width) return T(0);
    const int64_t at = row.at + x * in.column_stride;
    return in.dtype == dtype_of<T>() ? static_cast<const T*>(in.masks)[at] : load<T>(in.masks, in.dtype, at);
  }

  // Row y of the image: the two of the mask that it lies between.
  struct Between {
    Line low, high;
    T weight;
  };
  __device__ Between between(int64_t y) const {
    T weight;
    const int64_t low = rows.low(y, &weight);
    return {line(low), line(min_of(low + 1, rows.size - 1)), weight};
  }
  __device__ T blended(const Between& row, int64_t x) const {
    return blend(element_of(row.low, x), element_of(row.high, x), row.weight);
  }
  __device__ T value(const Between& row, int64_t x) const {
    T weight;
    const int64_t left = columns.low(x, &weight);
    return blend(blended(row, left), blended(row, min_of(left + 1, columns.size - 1)), weight);
  }

  // 16 bytes of the image: pixels `first` + [begin, end), of one row or several.
  __device__ void chunk(int64_t first, int begin, int end, int element, uint64_t (&words)[2]) const {
    const Division start(first + begin, in.image_width);
    int64_t y = start.quotient, x = start.remainder;
    words[0] = words[1] = outside * 0x0101010101010101;  // of elements larger than a byte it is 0
    const int64_t last = x + (end - begin) - 1;
    if (last < in.image_width && (y < p.y1 || y > p.y2 || x > p.x2 || last < p.x1)) return;
    words[0] = words[1] = 0;
    Between row = between(y);
#pragma unroll 1
    for (int k = begin; k < end; ++k) {
      const bool inside = x >= p.x1 && x <= p.x2 && y >= p.y1 && y <= p.y2;
      const uint64_t bits = inside ? stored(value(row, x)) : outside;
      const int at = k * element * 8;
      words[0] |= at < 64 ? bits << at : 0, words[1] |= at < 64 ? 0 : bits << (at - 64);
      if (++x == in.image_width) x = 0, row = between(++y);
    }
  }
};

// Block (x, i): a stretch of mask i in the image, of which a thread writes n_chunks times 16 bytes, aligned. A kernel
// for all dtypes of a compute type: the code is long.
template <class T>
__global__ void __launch_bounds__(kThreads) paste_kernel(PasteInput in, int element, int n_chunks, char* out) {
  __shared__ Pasted pasted_here;
  const int64_t pixels = in.image_height * in.image_width;
  const int in_chunk = 16 / element;
  for (int64_t i = blockIdx.y; i < in.boxes.count; i += gridDim.y) {
    __syncthreads();
    if (threadIdx.x == 0) pasted_here = pasted(in, i);
    __syncthreads();
    const Paster<T> paster(in, i, pasted_here);
    char* image = out + i * pixels * element;
    const int64_t before = reinterpret_cast<uintptr_t>(image) % 16 / element;  // pixels of chunk 0 that are not its own
#pragma unroll 1
    for (int k = 0; k < n_chunks; ++k) {
      const int64_t first = ((int64_t(blockIdx.x) * n_chunks + k) * kThreads + threadIdx.x) * in_chunk - before;
      if (first >= pixels) break;
      const int begin = static_cast<int>(first < 0 ? -first : 0);
      const int end = static_cast<int>(min_of<int64_t>(in_chunk, pixels - first));
      uint64_t words[2];
      paster.chunk(first, begin, end, element, words);
      if (end - begin == in_chunk)
        *reinterpret_cast<ulonglong2*>(image + first * element) = make_ulonglong2(words[0], words[1]);
      else
        for (int b = begin * element; b < end * element; ++b)
          image[first * element + b] = static_cast<char>(words[b / 8] >> (b % 8 * 8));
    }
  }
}

using Extent = long long;

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
  const int element = input.has_threshold ? 1 : static_cast<int>(size_of(input.dtype));
  const int64_t bytes = input.image_height * input.image_width * element;
  if (bytes == 0) return cudaSuccess;
  int n_chunks = kChunks;
  const auto blocks = [&] { return blocks_of(bytes + 15, kThreads * 16 * n_chunks); };
  while (n_chunks > 1 && blocks() * input.boxes.count < kEnoughBlocks) n_chunks /= 2;
  const dim3 grid(grid_x(blocks()), grid_yz(input.boxes.count));
  return with_compute_type(input.dtype, [&](auto t) {
    return launch(paste_kernel<decltype(t)>, grid, kThreads, stream, input, element, n_chunks, static_cast<char*>(out));
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
