// match_max_iou on the device: scan_kernel finds each anchor's best box and turns it into the match by the thresholds.
// With allow_low_quality, that is left to restore_kernel, once each box's largest IoU is known.
#include "matching/matching_scan.cuh"

namespace boxops::cuda {
namespace {

// Writes the matches of a thread's anchors by the thresholds; those with `restored` keep their best box in any case.
// Whether an ignore box covers too much is asked of negatives alone. All threads of the block call it.
template <class T>
struct Judge {
  static constexpr bool kHasPeaks = false;
  MaxIouRule<T> rule;
  int64_t* matches;
  T* ious;

  __device__ void write(int64_t image, bool has_boxes, const SpanAnchors<T>& own, BoxTile<T>& tile,
                        const bool (&restored)[kPerThread], bool writes_kept) const {
    bool keeps[kPerThread], negative[kPerThread], ignored[kPerThread];
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) {
      keeps[k] = restored[k] || (has_boxes && own.ious[k] >= rule.high);
      negative[k] = !keeps[k] && !(has_boxes && own.ious[k] >= rule.low);
      ignored[k] = false;
    }
    for (int64_t c = rule.ignored.begin(image), end = rule.ignored.end(image); c < end; c += kBoxes) {
      const int n = static_cast<int>(min_of<int64_t>(kBoxes, end - c));
      tile.load(rule.ignore_boxes, c, n);
      for (int i = 0; i < n; ++i)
#pragma unroll
        for (int k = 0; k < kPerThread; ++k)
          if (negative[k] && !ignored[k])
            ignored[k] = measure_of<Measure::kIoA>(tile[i], own.anchors[k], T(0), T(0)) > rule.ignore_threshold;
    }
    own.for_each([&](int k, int64_t a) {
      if (writes_kept || !keeps[k])
        matches[image * own.count + a] = keeps[k] ? own.boxes[k] : negative[k] && !ignored[k] ? -1 : -2;
    });
  }

  __device__ void operator()(int64_t image, const ImageBoxes& boxes, const SpanAnchors<T>& own,
                             BoxTile<T>& tile) const {
    const bool restored[kPerThread] = {};
    write(image, boxes.count > 0, own, tile, restored, true);
    own.for_each([&](int k, int64_t a) { ious[image * own.count + a] = own.ious[k]; });
  }
};

// Leaves all to restore_kernel.
template <class T>
struct StoreBest {
  static constexpr bool kHasPeaks = true;
  int64_t* matches;
  T* ious;

  __device__ void operator()(int64_t image, const ImageBoxes&, const SpanAnchors<T>& own, BoxTile<T>&) const {
    own.for_each([&](int k, int64_t a) {
      matches[image * own.count + a] = own.boxes[k], ious[image * own.count + a] = own.ious[k];
    });
  }
};

// The largest of n peaks, by a warp.
template <class T>
__device__ Bits<T> largest_of(const T* peaks, int64_t n) {
  Bits<T> largest = 0;
  const auto at = [&](int64_t c) { return detail::bits_as<Bits<T>>(peaks[min_of(c, n - 1)]); };
  for (int64_t c = threadIdx.x % 32; c < n; c += 8 * 32) {  // eight loads at a time
    const Bits<T> left = max_of(max_of(at(c), at(c + 32)), max_of(at(c + 64), at(c + 96)));
    const Bits<T> right = max_of(max_of(at(c + 128), at(c + 160)), max_of(at(c + 192), at(c + 224)));
    largest = max_of(largest, max_of(left, right));
  }
  return warp_max(largest);
}

// Brings those of boxes [first, first + n) to the tile whose largest IoU of all is in this chunk, in any order, and
// counts them in `reached`; the block waits before and after.
template <class T>
__device__ void load_reached(const Boxes& boxes, const T* peaks, int64_t chunks, int64_t chunk, int64_t first, int n,
                             BoxTile<T>& tile, int& reached) {
  __syncthreads();
  if (threadIdx.x == 0) reached = 0;
  __syncthreads();
  for (int i = threadIdx.x / 32; i < n; i += blockDim.x / 32) {
    const T* of_box = peaks + (first + i) * chunks;
    const Bits<T> largest = largest_of(of_box, chunks);
    if (threadIdx.x % 32 != 0 || detail::bits_as<Bits<T>>(of_box[chunk]) != largest) continue;
    const int at = atomicAdd(&reached, 1);
    tile.set(at, shape_of<Measure::kIoU>(load_box_at_once<T>(boxes, 0, first + i)));
    tile.peaks[at] = largest;
  }
  __syncthreads();
}

// Block (s, image): a span of anchors. An anchor whose IoU with some box is that box's largest keeps its best box; the
// others get theirs by the thresholds. Only boxes whose largest IoU is in the span's chunk are computed again.
template <class T>
__global__ void __launch_bounds__(kMaxThreads)
    restore_kernel(MatchInput input, int64_t chunk, int64_t chunks, const T* peaks, Judge<T> judge) {
  __shared__ BoxTile<T> tile;
  __shared__ int reached;
  const int64_t count = input.anchors.count, span = span_of(blockDim.x);
  for (int64_t image = blockIdx.y; image < input.anchors.batch; image += gridDim.y) {
    const ImageBoxes boxes = boxes_of(input.images, image);
    for (int64_t first = blockIdx.x * span; first < count; first += gridDim.x * span) {
      SpanAnchors<T> own(input.anchors, image, first);
      own.for_each([&](int k, int64_t a) { own.ious[k] = judge.ious[image * count + a]; });
      bool restored[kPerThread] = {};
      for (int64_t g = 0; g < boxes.count; g += kBoxes) {
        const int n = static_cast<int>(min_of<int64_t>(kBoxes, boxes.count - g));
        load_reached(input.gt_boxes, peaks, chunks, first / chunk, boxes.begin + g, n, tile, reached);
        for (int i = 0; i < reached; ++i) {
          const T largest = detail::bits_as<T>(tile.peaks[i]);  // 0: it is that of all anchors
#pragma unroll
          for (int k = 0; k < kPerThread; ++k)
            restored[k] |= largest == T(0) || (own.ious[k] >= largest && iou_of(tile[i], own.anchors[k]) == largest);
        }
      }
      judge.write(image, boxes.count > 0, own, tile, restored, false);
    }
  }
}

// Threads of a block: as few as leave one block for each multiprocessor.
int threads_of(const MatchInput& input) {
  const int64_t enough = 128 * blocks_of(input.anchors.count, 128 * kPerThread * kMultiprocessors);
  return static_cast<int>(min_of<int64_t>(max_of<int64_t>(enough, 128), kMaxThreads));
}

int64_t chunk_of(const MatchInput& input) {
  return boxops::chunk_of(input.anchors.count, input.gt_boxes.count, span_of(threads_of(input)), 2 * kMultiprocessors);
}

template <class T>
T* carve(void* base, const MatchInput& input, size_t* bytes) {
  Workspace w(base);
  T* peaks = w.take<T>(input.gt_boxes.count * blocks_of(input.anchors.count, chunk_of(input)));
  *bytes = w.used();
  return peaks;  // [boxes, chunks], see matching_scan.cuh
}

}  // namespace

size_t match_max_iou_workspace(const MatchInput& input, const MaxIouOptions& options) {
  if (!options.allow_low_quality) return 0;
  size_t bytes;
  with_compute_type(compute_type_of(input, options), [&](auto t) { carve<decltype(t)>(nullptr, input, &bytes); });
  return bytes;
}

int match_max_iou(const MatchInput& input, const MaxIouOptions& options, int64_t* matches, void* ious, void* workspace,
                  void* stream) {
  return with_compute_type(compute_type_of(input, options), [&](auto t) -> int {
    using T = decltype(t);
    const int64_t count = input.anchors.count, chunk = chunk_of(input);
    const int threads = threads_of(input);
    const Judge<T> judge{MaxIouRule<T>(options), matches, static_cast<T*>(ious)};
    if (!options.allow_low_quality || input.gt_boxes.count == 0)
      return scan<T>(input, threads, chunk, nullptr, judge, stream);
    size_t bytes;
    T* peaks = carve<T>(workspace, input, &bytes);
    BOXOPS_TRY(scan(input, threads, chunk, peaks, StoreBest<T>{matches, judge.ious}, stream));
    return launch(restore_kernel<T>, dim3(grid_x(blocks_of(count, span_of(threads))), grid_yz(input.anchors.batch)),
                  threads, stream, input, chunk, blocks_of(count, chunk), static_cast<const T*>(peaks), judge);
  });
}

}  // namespace boxops::cuda
