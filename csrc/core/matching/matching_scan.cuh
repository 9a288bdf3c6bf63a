// The pass over all pairs of an image's anchors and boxes, from which both rules of matching start.
//
//   anchors   | warp | warp | warp | warp | warp | ...    of kPerWarp: kPerThread of each lane, in its registers
//   spans     | span               | span              |  what a block's warps hold at a time
//   chunks    | chunk 0                                |  a block each
//   boxes     | kBoxes | kBoxes | ...                     in shared memory, with cells that tell which of 32 are near
//                                                         an anchor: where the lanes' boxes differ, each lane goes
//                                                         through its own, else the warp through those of all
//
// It leaves each anchor's best box and, where asked for, each box's largest IoU in every chunk: peaks[box, chunk].
#pragma once

#include "common/cells.cuh"
#include "common/cuda_utils.cuh"
#include "common/load_box.cuh"
#include "common/ordinary.cuh"
#include "common/warp.cuh"
#include "matching/matching.h"

namespace boxops::cuda {
namespace {

constexpr int kMaxThreads = 768;  // of a block
constexpr int kPerThread = 2;     // independent divisions in flight
constexpr int kPerWarp = 32 * kPerThread;
constexpr int kBoxes = 128;
constexpr int kMultiprocessors = 132;  // of an H100; where there are others, blocks are somewhat too large or small

constexpr int span_of(int threads) { return threads * kPerThread; }

template <class T>
struct BitsOf;  // a signed integer as wide as T: it orders IoUs as T does, and -0 below 0
template <>
struct BitsOf<float> {
  using type = int;
};
template <>
struct BitsOf<double> {
  using type = long long;
};
template <class T>
using Bits = typename BitsOf<T>::type;

struct ImageBoxes {
  int64_t begin, count;
};

// The boxes of an image. Offsets count as if they never fell, so that no two images share a box, whatever those on the
// device say. All lanes of a warp call.
__device__ inline ImageBoxes boxes_of(const Ragged& images, int64_t image) {
  if (images.offsets == nullptr) return {0, images.total};
  int begin = 0, end = 0;
  for (int64_t i = threadIdx.x % 32; i <= image + 1; i += 32) {
    const int offset = static_cast<int>(images.at(i));
    end = max_of(end, offset);
    if (i <= image) begin = max_of(begin, offset);
  }
  begin = warp_max(begin);
  return {begin, warp_max(end) - begin};
}

template <class T>
struct BoxTile {
  alignas(4 * sizeof(T)) Box<T> corners[kBoxes];
  T areas[kBoxes];
  Bits<T> peaks[kBoxes];  // in the span; or the largest IoUs of all
  bool ordinary;          // all boxes are, but for empty ones
  Cells<T, kBoxes / 32> cells;

  __device__ Shape<T> operator[](int i) const {
    Shape<T> s;
    s.x1 = corners[i].x1, s.y1 = corners[i].y1, s.x2 = corners[i].x2, s.y2 = corners[i].y2;
    s.area = areas[i], s.angle = T(0);
    return s;
  }
  // An empty box, which overlaps nothing, becomes one that is far from all.
  __device__ void set(int i, const Shape<T>& s) {
    if (s.area > T(0)) corners[i] = s, areas[i] = s.area;
    else corners[i] = nowhere<T>(), areas[i] = T(0);
  }

  // Brings boxes [first, first + n) here; the block waits before and after.
  __device__ void load(const Boxes& boxes, int64_t first, int n) {
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
      set(i, shape_of<Measure::kIoU>(load_box_at_once<T, true>(boxes, 0, first + i)));
      peaks[i] = 0;
    }
    __syncthreads();
  }

  // Files the n boxes by cells, which the first warp fits to them; the block waits behind it.
  __device__ void file(int n) {
    if (threadIdx.x < 32) {
      Box<T> hull = nowhere<T>();
      bool own = true;
      for (int i = threadIdx.x; i < n; i += 32) {
        const Shape<T> box = (*this)[i];
        hull = hull_of<T>(hull, box);
        own = own & (is_ordinary<Measure::kIoU>(box) | (box.area == T(0)));
      }
      hull = warp_hull(hull), own = __all_sync(kFullMask, own);
      if (threadIdx.x == 0) cells.fit(hull), ordinary = own;
    }
    __syncthreads();
    cells.build(corners, n);
    __syncthreads();
  }
};

// A thread's anchors of the span that begins at `first`, and the best box of each so far.
template <class T>
struct SpanAnchors {
  int64_t first, count;
  Shape<T> anchors[kPerThread];
  T ious[kPerThread];
  int boxes[kPerThread];

  __device__ SpanAnchors(const Boxes& all, int64_t image, int64_t span) : count(all.count) {
    first = span + threadIdx.x / 32 * kPerWarp + threadIdx.x % 32;
    Box<T> loaded[kPerThread];  // together
#pragma unroll
    for (int k = 0; k < kPerThread; ++k)  // the last one twice does no harm
      loaded[k] = load_box_at_once<T, true>(all, image, min_of(first + k * 32, count - 1));
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) anchors[k] = shape_of<Measure::kIoU>(loaded[k]), ious[k] = T(0), boxes[k] = 0;
  }

  // Calls f(k, its place) for the anchors that there are.
  template <class F>
  __device__ void for_each(F&& f) const {
#pragma unroll
    for (int k = 0; k < kPerThread; ++k)
      if (first + k * 32 < count) f(k, first + k * 32);
  }

  // Whether all of the warp are.
  __device__ bool are_ordinary() const {
    bool own = true;
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) own = own & is_ordinary<Measure::kIoU>(anchors[k]);
    return __all_sync(kFullMask, own);
  }

  // The IoUs of a box with the anchors; `quick`: all are ordinary. The same bits either way.
  __device__ void measure(const Shape<T>& box, bool quick, T (&iou)[kPerThread]) const {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (quick) {
#pragma unroll
        for (int k = 0; k < kPerThread; ++k) iou[k] = ordinary_measure_of<Measure::kIoU>(box, anchors[k], 0.0f);
        return;
      }
    }
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) iou[k] = intersection(box, anchors[k]) > T(0) ? iou_of(box, anchors[k]) : T(0);
  }

  // Compares the warp's anchors with the boxes of `left`, one after another.
  template <bool has_peaks>
  __device__ void compare_together(BoxTile<T>& tile, int from, unsigned left, int g, bool quick) {
    for (; left != 0; left &= left - 1) {
      const int i = from + __ffs(static_cast<int>(left)) - 1;
      const Shape<T> box = tile[i];
      T iou[kPerThread];
      measure(box, quick, iou);
      Bits<T> peak = 0;
#pragma unroll
      for (int k = 0; k < kPerThread; ++k) {
        if (iou[k] > ious[k]) ious[k] = iou[k], boxes[k] = g + i;
        peak = max_of(peak, detail::bits_as<Bits<T>>(iou[k]));
      }
      if constexpr (!has_peaks) continue;
      peak = warp_max(peak);
      if (threadIdx.x % 32 == 0 && peak > 0) atomicMax(&tile.peaks[i], peak);
    }
  }

  // Compares anchor k with its own boxes, the bits of `left`. All are ordinary.
  template <bool has_peaks>
  __device__ void compare_apart(BoxTile<T>& tile, int from, unsigned left, int g, int k) {
    for (; left != 0; left &= left - 1) {
      const int i = from + __ffs(static_cast<int>(left)) - 1;
      const T iou = ordinary_measure_of<Measure::kIoU>(tile[i], anchors[k], T(0));
      if (iou > ious[k]) ious[k] = iou, boxes[k] = g + i;
      if (has_peaks && iou > T(0)) atomicMax(&tile.peaks[i], detail::bits_as<Bits<T>>(iou));
    }
  }

  // Compares them with the n boxes of the tile, of which the first is the image's box g; `quick`: all anchors of the
  // warp are ordinary.
  template <bool has_peaks>
  __device__ void compare(BoxTile<T>& tile, int n, int g, bool quick) {
    quick = quick && tile.ordinary;
    int at[kPerThread][4];
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) tile.cells.around(anchors[k], at[k]);
    for (int from = 0; from < n; from += 32) {
      unsigned near[kPerThread], any = 0;
      int most = 0;
#pragma unroll
      for (int k = 0; k < kPerThread; ++k) {
        near[k] = tile.cells.near(from / 32, at[k]);
        any |= near[k], most = max_of(most, __popc(near[k]));
      }
      any = warp_or(any);
      if constexpr (sizeof(T) == sizeof(float))
        if (quick && __popc(any) > 2 * warp_max(most)) {
#pragma unroll
          for (int k = 0; k < kPerThread; ++k) compare_apart<has_peaks>(tile, from, near[k], g, k);
          continue;
        }
      compare_together<has_peaks>(tile, from, any, g, quick);
    }
  }
};

// Block (c, image): a chunk of anchors. All threads call finish(image, its boxes, a SpanAnchors, the tile), to which
// the tile then belongs; it says whether there are peaks.
template <class T, class Finish>
__global__ void __launch_bounds__(kMaxThreads)
    scan_kernel(MatchInput input, int64_t chunk, int64_t chunks, T* peaks, Finish finish) {
  __shared__ BoxTile<T> tile;
  const int64_t count = input.anchors.count;
  for (int64_t image = blockIdx.y; image < input.anchors.batch; image += gridDim.y) {
    const ImageBoxes boxes = boxes_of(input.images, image);
    for (int64_t c = blockIdx.x; c < chunks; c += gridDim.x)
      for (int64_t first = c * chunk; first < min_of(count, (c + 1) * chunk); first += span_of(blockDim.x)) {
        SpanAnchors<T> own(input.anchors, image, first);
        const bool quick = own.are_ordinary();
        for (int64_t g = 0; g < boxes.count; g += kBoxes) {
          const int n = static_cast<int>(min_of<int64_t>(kBoxes, boxes.count - g));
          tile.load(input.gt_boxes, boxes.begin + g, n);
          tile.file(n);
          own.template compare<Finish::kHasPeaks>(tile, n, static_cast<int>(g), quick);
          if constexpr (!Finish::kHasPeaks) continue;
          __syncthreads();
          for (int i = threadIdx.x; i < n; i += blockDim.x) {
            T* peak = peaks + (boxes.begin + g + i) * chunks + c;
            const T in_span = detail::bits_as<T>(tile.peaks[i]);
            *peak = first == c * chunk ? in_span : max_of(*peak, in_span);
          }
        }
        finish(image, boxes, own, tile);
      }
  }
}

template <class T, class Finish>
int scan(const MatchInput& input, int threads, int64_t chunk, T* peaks, const Finish& finish, void* stream) {
  const int64_t chunks = blocks_of(input.anchors.count, chunk);
  return launch(scan_kernel<T, Finish>, dim3(grid_x(chunks), grid_yz(input.anchors.batch)), threads, stream, input,
                chunk, chunks, peaks, finish);
}

}  // namespace
}  // namespace boxops::cuda
