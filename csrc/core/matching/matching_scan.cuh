// The pass over all pairs of an image's anchors and boxes, from which both rules of matching start.
//
//   anchors   | span | span | span | span | span | ...     of kSpan; kPerThread of each thread, in its registers
//   chunks    | chunk 0            | chunk 1           |   a block each
//   boxes     | kBoxes | kBoxes | ...                      in shared memory; each span is compared with all of them
//
// It leaves each anchor's best box and, where asked for, each box's largest IoU in every chunk: peaks[box, chunk].
#pragma once

#include "common/cuda_utils.cuh"
#include "common/warp.cuh"
#include "matching/matching.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kPerThread = 2;  // independent divisions in flight
constexpr int kSpan = kThreads * kPerThread;
constexpr int kBoxes = 128;

template <class T>
struct BitsOf;  // an unsigned integer as wide as T; as T is not negative here, its bits order it
template <>
struct BitsOf<float> {
  using type = unsigned;
};
template <>
struct BitsOf<double> {
  using type = unsigned long long;
};

template <class T>
struct ScanShared {
  Shape<T> boxes[kBoxes];
  typename BitsOf<T>::type peaks[kBoxes];  // in the span
};

// Brings boxes [first, first + n) to shared memory; the block waits before and after.
template <class T>
__device__ void load_boxes(const Boxes& boxes, int64_t first, int n, Shape<T>* shared) {
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    shared[i] = shape_of<Measure::kIoU>(load_box<T>(boxes, 0, first + i));
  __syncthreads();
}

// A thread's anchors of the span that begins at `first`, and the best box of each so far.
template <class T>
struct SpanAnchors {
  Shape<T> anchors[kPerThread];
  T ious[kPerThread];
  int boxes[kPerThread];

  __device__ SpanAnchors(const Boxes& all, int64_t image, int64_t first) {
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) {
      const int64_t a = min_of(first + k * kThreads + threadIdx.x, all.count - 1);  // the last one twice does no harm
      anchors[k] = shape_of<Measure::kIoU>(load_box<T>(all, image, a));
      ious[k] = T(0), boxes[k] = 0;
    }
  }

  // Compares them with the n boxes in shared memory, of which the first is the image's box g. A box's peak is found by
  // shuffles within a warp, and by a maximum in shared memory over the warps.
  __device__ void compare(ScanShared<T>& shared, int n, int g, bool has_peaks) {
    for (int i = 0; i < n; ++i) {
      T peak = T(0);
#pragma unroll
      for (int k = 0; k < kPerThread; ++k) {
        if (!(intersection<T>(shared.boxes[i], anchors[k]) > T(0))) continue;  // the IoU is 0
        const T iou = iou_of(shared.boxes[i], anchors[k]);
        if (iou > ious[k]) ious[k] = iou, boxes[k] = g + i;
        peak = max_of(peak, iou);
      }
      if (!has_peaks || !__any_sync(kFullMask, peak > T(0))) continue;
      peak = warp_max(peak);
      if (threadIdx.x % 32 == 0) atomicMax(&shared.peaks[i], detail::bits_as<typename BitsOf<T>::type>(peak));
    }
  }

  __device__ void store(int64_t first, int64_t count, int64_t* matches, T* best) const {
#pragma unroll
    for (int k = 0; k < kPerThread; ++k)
      if (const int64_t a = first + k * kThreads + threadIdx.x; a < count) matches[a] = boxes[k], best[a] = ious[k];
  }
};

// Block (c, image): a chunk of anchors. `peaks` null: not asked for.
template <class T>
__global__ void __launch_bounds__(kThreads)
    scan_kernel(MatchInput input, int64_t chunk, int64_t chunks, T* peaks, int64_t* matches, T* ious) {
  __shared__ ScanShared<T> shared;
  const int64_t count = input.anchors.count;
  for (int64_t image = blockIdx.y; image < input.anchors.batch; image += gridDim.y)
    for (int64_t c = blockIdx.x; c < chunks; c += gridDim.x) {
      const int64_t from = input.images.begin(image), boxes = input.images.count(image);
      for (int64_t first = c * chunk; first < min_of(count, (c + 1) * chunk); first += kSpan) {
        SpanAnchors<T> own(input.anchors, image, first);
        for (int64_t g = 0; g < boxes; g += kBoxes) {
          const int n = static_cast<int>(min_of<int64_t>(kBoxes, boxes - g));
          load_boxes(input.gt_boxes, from + g, n, shared.boxes);
          if (peaks != nullptr) {
            for (int i = threadIdx.x; i < n; i += kThreads) shared.peaks[i] = 0;
            __syncthreads();
          }
          own.compare(shared, n, static_cast<int>(g), peaks != nullptr);
          if (peaks == nullptr) continue;
          __syncthreads();
          for (int i = threadIdx.x; i < n; i += kThreads) {
            T* peak = peaks + (from + g + i) * chunks + c;
            const T in_span = detail::bits_as<T>(shared.peaks[i]);
            *peak = first == c * chunk ? in_span : max_of(*peak, in_span);
          }
        }
        own.store(first, count, matches + image * count, ious + image * count);
      }
    }
}

template <class T>
int scan(const MatchInput& input, int64_t chunk, T* peaks, int64_t* matches, T* ious, void* stream) {
  const int64_t chunks = blocks_of(input.anchors.count, chunk);
  return launch(scan_kernel<T>, dim3(grid_x(chunks), grid_yz(input.anchors.batch)), kThreads, stream, input, chunk,
                chunks, peaks, matches, ious);
}

// One warp makes offsets that never fall, so that no two images share a box, whatever the offsets on the device say.
__global__ void rising_kernel(Ragged images, int64_t* rising) {
  const int lane = static_cast<int>(threadIdx.x);
  int64_t last = 0;
  for (int64_t first = 0; first <= images.batch; first += 32) {
    int64_t offset = max_of(last, images.at(min_of(first + lane, images.batch)));
    offset = warp_scan(offset, [](int64_t a, int64_t b) { return max_of(a, b); });
    if (first + lane <= images.batch) rising[first + lane] = offset;
    last = __shfl_sync(kFullMask, offset, 31);
  }
}

int make_rising(MatchInput& input, int64_t* rising, void* stream) {
  const Ragged given = input.images;
  if (given.offsets == nullptr) return cudaSuccess;
  input.images.offsets = rising;
  return launch(rising_kernel, 1, 32, stream, given, rising);
}

}  // namespace
}  // namespace boxops::cuda
