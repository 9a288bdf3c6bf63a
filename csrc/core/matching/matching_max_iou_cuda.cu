// match_max_iou on the device: scan_kernel finds each anchor's best box, and match_kernel turns it into the match by
// the thresholds. For allow_low_quality, highest_kernel finds each box's largest IoU in between.
#include "matching/matching_scan.cuh"

namespace boxops::cuda {
namespace {

// A warp finds the largest IoU of one box.
template <class T>
__global__ void __launch_bounds__(kThreads) highest_kernel(int64_t boxes, int64_t chunks, const T* peaks, T* highest) {
  const int lane = threadIdx.x % 32;
  for (const int64_t g : grid_stride<kThreads, 32>(boxes)) {
    T max = T(0);
    for (int64_t c = lane; c < chunks; c += 32) max = max_of(peaks[g * chunks + c], max);
    max = warp_max(max);
    if (lane == 0) highest[g] = max;
  }
}

template <class T>
struct MatchShared {
  Shape<T> boxes[kBoxes];
  T highest[kBoxes];
};

// Whether the anchor's IoU with one of the boxes [begin, end) is that box's largest. Only boxes whose largest is not
// above the anchor's are computed again.
template <class T>
__device__ bool equals_highest(const Boxes& gt_boxes, int64_t begin, int64_t end, const T* highest,
                               const Shape<T>& anchor, T best, MatchShared<T>& shared) {
  bool equals = false;
  for (int64_t g = begin; g < end; g += kBoxes) {
    const int n = static_cast<int>(min_of<int64_t>(kBoxes, end - g));
    load_boxes(gt_boxes, g, n, shared.boxes);
    for (int i = threadIdx.x; i < n; i += kThreads) shared.highest[i] = highest[g + i];
    __syncthreads();
    for (int i = 0; i < n; ++i)
      equals |= best >= shared.highest[i] && iou_of(shared.boxes[i], anchor) == shared.highest[i];
  }
  return equals;
}

// Whether an ignore box of the image covers too much of the anchor; asked of negatives alone.
template <class T>
__device__ bool is_ignored(const MaxIouRule<T>& rule, int64_t image, const Shape<T>& anchor, bool is_negative,
                           MatchShared<T>& shared) {
  bool ignored = false;
  for (int64_t c = rule.ignored.begin(image), end = rule.ignored.end(image); c < end; c += kBoxes) {
    const int n = static_cast<int>(min_of<int64_t>(kBoxes, end - c));
    load_boxes(rule.ignore_boxes, c, n, shared.boxes);
    for (int i = 0; i < n && is_negative && !ignored; ++i)
      ignored = measure_of<Measure::kIoA>(shared.boxes[i], anchor, T(0), T(0)) > rule.ignore_threshold;
  }
  return ignored;
}

// A thread turns the best box of one anchor into its match. `highest` is null without the low-quality rule.
template <class T>
__global__ void __launch_bounds__(kThreads)
    match_kernel(MatchInput input, MaxIouRule<T> rule, const T* highest, int64_t* matches, const T* ious) {
  __shared__ MatchShared<T> shared;
  const int64_t count = input.anchors.count;
  for (int64_t image = blockIdx.y; image < input.anchors.batch; image += gridDim.y)
    for (int64_t first = int64_t(blockIdx.x) * kThreads; first < count; first += int64_t(gridDim.x) * kThreads) {
      const int64_t a = first + threadIdx.x, at = image * count + a;
      const Shape<T> anchor = shape_of<Measure::kIoU>(load_box<T>(input.anchors, image, min_of(a, count - 1)));
      const int64_t begin = input.images.begin(image), end = input.images.end(image);
      const T best = a < count ? ious[at] : T(-1);
      bool keeps = begin < end && best >= rule.high;
      if (highest != nullptr) keeps |= equals_highest(input.gt_boxes, begin, end, highest, anchor, best, shared);
      const bool is_negative = !keeps && !(begin < end && best >= rule.low);
      const bool ignored = is_ignored(rule, image, anchor, is_negative, shared);
      if (a < count && !keeps) matches[at] = is_negative && !ignored ? -1 : -2;
    }
}

template <class T>
struct MaxIouState {
  T* peaks;    // [boxes, chunks], see matching_scan.cuh
  T* highest;  // [boxes]
  int64_t* rising;
};

template <class T>
MaxIouState<T> carve(void* base, const MatchInput& input, size_t* bytes) {
  const int64_t count = input.anchors.count, boxes = input.gt_boxes.count;
  Workspace w(base);
  MaxIouState<T> s{};
  s.peaks = w.take<T>(boxes * blocks_of(count, chunk_of(count, boxes, kSpan))), s.highest = w.take<T>(boxes);
  s.rising = w.take<int64_t>(input.anchors.batch + 1);
  *bytes = w.used();
  return s;
}

}  // namespace

size_t match_max_iou_workspace(const MatchInput& input, const MaxIouOptions& options) {
  if (!options.allow_low_quality) return 0;
  size_t bytes;
  with_compute_type(compute_type_of(input, options), [&](auto t) { carve<decltype(t)>(nullptr, input, &bytes); });
  return bytes;
}

int match_max_iou(const MatchInput& given, const MaxIouOptions& options, int64_t* matches, void* ious, void* workspace,
                  void* stream) {
  return with_compute_type(compute_type_of(given, options), [&](auto t) -> int {
    using T = decltype(t);
    MatchInput input = given;
    const int64_t boxes = input.gt_boxes.count, count = input.anchors.count;
    MaxIouState<T> s{};
    if (options.allow_low_quality && boxes > 0) {
      size_t bytes;
      s = carve<T>(workspace, input, &bytes);
      BOXOPS_TRY(make_rising(input, s.rising, stream));
    }
    const int64_t chunk = chunk_of(count, boxes, kSpan);
    BOXOPS_TRY(scan(input, chunk, s.peaks, matches, static_cast<T*>(ious), stream));
    if (s.peaks != nullptr)
      BOXOPS_TRY(launch(highest_kernel<T>, grid_x(blocks_of(boxes, kThreads / 32)), kThreads, stream, boxes,
                        blocks_of(count, chunk), s.peaks, s.highest));
    return launch(match_kernel<T>, dim3(grid_x(blocks_of(count, kThreads)), grid_yz(input.anchors.batch)), kThreads,
                  stream, input, MaxIouRule<T>(options), s.highest, matches, static_cast<const T*>(ious));
  });
}

}  // namespace boxops::cuda
