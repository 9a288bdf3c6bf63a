#include "assign/matching.h"
#include "common/compact.cuh"
#include "common/cuda_utils.cuh"
#include "common/sort.h"
#include "common/warp.cuh"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kPerThread = 2;                 // anchors of a thread: independent divisions in flight
constexpr int kSpan = kThreads * kPerThread;  // anchors of a block at a time
constexpr int kBoxes = 128;                   // boxes in shared memory at a time

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
using Bits = typename BitsOf<T>::type;

// Brings boxes [first, first + n) of an array to shared memory; the block waits before and after.
template <class T>
__device__ void share(const Boxes& boxes, int64_t first, int n, Shape<T>* shared) {
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    shared[i] = shape_of<Measure::kIoU>(load_box<T>(boxes, 0, first + i));
  __syncthreads();
}

// A block takes a chunk of an image's anchors, kSpan at a time, past all boxes of the image; a thread keeps
// kPerThread anchors with their best boxes in registers. Unless `peaks` is null, the block also finds the largest IoU
// of every box in the chunk: threads of a warp by shuffles, warps by a maximum in shared memory.
template <class T>
__global__ void __launch_bounds__(kThreads)
    scan_kernel(MatchInput input, int64_t chunk, int64_t chunks, T* peaks, int64_t* matches, T* ious) {
  __shared__ Shape<T> boxes[kBoxes];
  __shared__ Bits<T> most[kBoxes];
  const int64_t count = input.anchors.count;
  const int t = static_cast<int>(threadIdx.x);
  for (int64_t image = blockIdx.y; image < input.anchors.batch; image += gridDim.y)
    for (int64_t c = blockIdx.x; c < chunks; c += gridDim.x) {
      const int64_t from = input.images.begin(image), n = input.images.count(image);
      for (int64_t first = c * chunk; first < min_of(count, (c + 1) * chunk); first += kSpan) {
        Shape<T> mine[kPerThread];
        T best[kPerThread];
        int which[kPerThread];
#pragma unroll
        for (int k = 0; k < kPerThread; ++k) {
          const int64_t a = min_of(first + k * kThreads + t, count - 1);  // a double at the end does no harm
          mine[k] = shape_of<Measure::kIoU>(load_box<T>(input.anchors, image, a));
          best[k] = T(0), which[k] = 0;
        }
        for (int64_t g = 0; g < n; g += kBoxes) {
          const int m = static_cast<int>(min_of<int64_t>(kBoxes, n - g));
          share(input.gt_boxes, from + g, m, boxes);
          if (peaks != nullptr) {
            for (int i = t; i < m; i += kThreads) most[i] = 0;
            __syncthreads();
          }
          for (int i = 0; i < m; ++i) {
            T top = T(0);
#pragma unroll
            for (int k = 0; k < kPerThread; ++k) {
              if (!(intersection<T>(boxes[i], mine[k]) > T(0))) continue;  // the IoU is 0
              const T iou = iou_of(boxes[i], mine[k]);
              if (iou > best[k]) best[k] = iou, which[k] = static_cast<int>(g) + i;
              top = max_of(top, iou);
            }
            if (peaks == nullptr || !__any_sync(kFullMask, top > T(0))) continue;
            top = warp_max(top);
            if (t % 32 == 0) atomicMax(&most[i], detail::bits_as<Bits<T>>(top));
          }
          if (peaks == nullptr) continue;
          __syncthreads();
          for (int i = t; i < m; i += kThreads) {
            T* peak = peaks + (from + g + i) * chunks + c;
            const T top = detail::bits_as<T>(most[i]);
            *peak = first == c * chunk ? top : max_of(*peak, top);
          }
        }
#pragma unroll
        for (int k = 0; k < kPerThread; ++k) {
          const int64_t a = first + k * kThreads + t;
          if (a < count) matches[image * count + a] = which[k], ious[image * count + a] = best[k];
        }
      }
    }
}

// A warp finds the largest IoU of one box.
template <class T>
__global__ void __launch_bounds__(kThreads) most_kernel(int64_t boxes, int64_t chunks, const T* peaks, T* most) {
  const int lane = threadIdx.x % 32;
  for (int64_t g = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32; g < boxes;
       g += int64_t(gridDim.x) * kThreads / 32) {
    T top = T(0);
    for (int64_t c = lane; c < chunks; c += 32) top = max_of(peaks[g * chunks + c], top);
    top = warp_max(top);
    if (lane == 0) most[g] = top;
  }
}

// A thread turns the best box of one anchor into its match. `most` is null without the low-quality rule; only boxes
// whose largest IoU is within the anchor's reach are computed again.
template <class T>
__global__ void __launch_bounds__(kThreads)
    judge_kernel(MatchInput input, MaxIouRule<T> rule, const T* most, int64_t* matches, const T* ious) {
  __shared__ Shape<T> boxes[kBoxes];
  __shared__ T tops[kBoxes];
  const int64_t count = input.anchors.count;
  for (int64_t image = blockIdx.y; image < input.anchors.batch; image += gridDim.y)
    for (int64_t first = int64_t(blockIdx.x) * kThreads; first < count; first += int64_t(gridDim.x) * kThreads) {
      const int64_t from = input.images.begin(image), n = input.images.count(image);
      const int64_t a = first + threadIdx.x, at = image * count + a;
      const Shape<T> mine = shape_of<Measure::kIoU>(load_box<T>(input.anchors, image, min_of(a, count - 1)));
      const T best = a < count ? ious[at] : T(-1);
      bool keeps = n > 0 && best >= rule.high;
      for (int64_t g = 0; most != nullptr && g < n; g += kBoxes) {
        const int m = static_cast<int>(min_of<int64_t>(kBoxes, n - g));
        share(input.gt_boxes, from + g, m, boxes);
        for (int i = threadIdx.x; i < m; i += kThreads) tops[i] = most[from + g + i];
        __syncthreads();
        for (int i = 0; i < m; ++i) keeps |= best >= tops[i] && iou_of(boxes[i], mine) == tops[i];
      }
      bool below = !keeps && !(n > 0 && best >= rule.low), covered = false;
      for (int64_t i = rule.ignored.begin(image), end = rule.ignored.end(image); i < end; i += kBoxes) {
        const int m = static_cast<int>(min_of<int64_t>(kBoxes, end - i));
        share(rule.ignore_boxes, i, m, boxes);
        for (int j = 0; j < m && below && !covered; ++j)
          covered = measure_of<Measure::kIoA>(boxes[j], mine, T(0), T(0)) > rule.ignore_threshold;
      }
      if (a < count && !keeps) matches[at] = below && !covered ? -1 : -2;
    }
}

// The columns of the greedy rule: of IoUs to be computed, or of a given matrix.
template <class T>
struct BoxColumns {
  MatchInput input;
  static constexpr bool kZeroIsLeast = true;
  struct Column {
    Boxes anchors;
    int64_t image;
    Shape<T> box;
    __device__ T operator()(int64_t a) const {
      return iou_of(box, shape_of<Measure::kIoU>(load_box<T>(anchors, image, a)));
    }
  };
  __device__ int64_t begin(int64_t image) const { return input.images.begin(image); }
  __device__ int64_t count(int64_t image) const { return input.images.count(image); }
  __device__ Column column(int64_t image, int64_t g) const {
    return {input.anchors, image, shape_of<Measure::kIoU>(load_box<T>(input.gt_boxes, 0, begin(image) + g))};
  }
};

template <class T>
struct MatrixColumns {
  MatchMatrix matrix;
  static constexpr bool kZeroIsLeast = false;
  struct Column {
    MatchMatrix matrix;
    int64_t start;
    __device__ T operator()(int64_t a) const {
      const T v = load<T>(matrix.data, matrix.dtype, start + a * matrix.anchor_stride);
      return v == v ? v : -std::numeric_limits<T>::infinity();
    }
  };
  __device__ int64_t begin(int64_t image) const { return image * matrix.boxes; }
  __device__ int64_t count(int64_t) const { return matrix.boxes; }
  __device__ Column column(int64_t image, int64_t g) const {
    return {matrix, image * matrix.batch_stride + g * matrix.box_stride};
  }
};

// What the greedy rule works on. A head is the largest entry left in a column: its value, and its anchor, -1 when the
// box has got an anchor or none is left.
template <class T>
struct Greedy {
  int64_t batch, anchors, chunk, chunks;
  T* peaks;         // [boxes, chunks] bound what is left of each column in each chunk, NaN where nothing is
  T* value;         // [boxes]
  int64_t* anchor;  // [boxes]
  int64_t* list;    // [boxes]
  uint8_t* beaten;  // [boxes]
  uint8_t* taken;   // [B, A]
  int64_t* rising;  // [B + 1]
  int64_t* matches;
  T* ious;
};

template <class T>
Greedy<T> carve(void* base, int64_t batch, int64_t anchors, int64_t boxes, int64_t least, size_t* bytes) {
  Workspace w(base);
  Greedy<T> s{};
  s.batch = batch, s.anchors = anchors, s.chunk = chunk_of(anchors, boxes, least);
  s.chunks = blocks_of(anchors, s.chunk);
  s.peaks = w.take<T>(boxes * s.chunks), s.value = w.take<T>(boxes);
  s.anchor = w.take<int64_t>(boxes), s.list = w.take<int64_t>(boxes);
  s.beaten = w.take<uint8_t>(boxes), s.taken = w.take<uint8_t>(batch * anchors);
  s.rising = w.take<int64_t>(batch + 1);
  *bytes = w.used();
  return s;
}

// One warp makes offsets that never fall, so that no two images share a box, whatever the offsets on the device say.
__global__ void rising_kernel(Ragged images, int64_t* rising) {
  const int lane = static_cast<int>(threadIdx.x);
  int64_t most = 0;
  for (int64_t first = 0; first <= images.batch; first += 32) {
    int64_t v = max_of(most, images.at(min_of(first + lane, images.batch)));
    for (int step = 1; step < 32; step *= 2) {
      const int64_t left = __shfl_up_sync(kFullMask, static_cast<long long>(v), step);
      if (lane >= step) v = max_of(v, left);
    }
    if (first + lane <= images.batch) rising[first + lane] = v;
    most = __shfl_sync(kFullMask, static_cast<long long>(v), 31);
  }
}

// A thread turns the best box of one anchor into its match by the threshold.
template <class T>
__global__ void __launch_bounds__(kThreads) threshold_kernel(MatchInput input, GreedyRule<T> rule, Greedy<T> s) {
  for (const int64_t at : grid_stride<kThreads>(s.batch * s.anchors)) {
    s.taken[at] = 0;
    if (!rule.has_threshold || input.images.count(at / s.anchors) == 0 || !(s.ious[at] >= rule.threshold))
      s.matches[at] = -1;
  }
}

// A warp finds the best box of one row of the matrix, and its match by the threshold.
template <class T>
__global__ void __launch_bounds__(kThreads) row_kernel(MatchMatrix m, GreedyRule<T> rule, Greedy<T> s) {
  for (int64_t at = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32; at < m.batch * m.anchors;
       at += int64_t(gridDim.x) * kThreads / 32) {
    const int64_t start = at / m.anchors * m.batch_stride + at % m.anchors * m.anchor_stride;
    auto best = Indexed<T>::none();
    for (int64_t g = threadIdx.x % 32; g < m.boxes; g += 32) {
      const T v = load<T>(m.data, m.dtype, start + g * m.box_stride);
      const Indexed<T> own{v == v ? v : -std::numeric_limits<T>::infinity(), g};
      if (own.before(best)) best = own;
    }
    best = warp_first(best);
    if (threadIdx.x % 32 != 0) continue;
    s.taken[at] = 0, s.ious[at] = m.boxes > 0 ? best.value : T(0);
    s.matches[at] = m.boxes > 0 && rule.has_threshold && best.value >= rule.threshold ? best.index : -1;
  }
}

// A thread finds the largest entry of one column in one chunk; neighbours read neighbouring columns.
template <class T>
__global__ void __launch_bounds__(kThreads) column_kernel(MatrixColumns<T> pairs, Greedy<T> s) {
  const int64_t boxes = pairs.matrix.boxes;
  for (const int64_t at : grid_stride<kThreads>(s.batch * s.chunks * boxes)) {
    const int64_t g = at % boxes, c = at / boxes % s.chunks, image = at / boxes / s.chunks;
    const auto column = pairs.column(image, g);
    T most = -std::numeric_limits<T>::infinity();
    for (int64_t a = c * s.chunk; a < min_of(s.anchors, (c + 1) * s.chunk); ++a) most = max_of(column(a), most);
    s.peaks[(image * boxes + g) * s.chunks + c] = most;
  }
}

// A warp finds the head of one column: it looks into the chunk that promises most, until that keeps its promise.
template <class T, class Column>
__device__ void find_head(const Greedy<T>& s, const Column& column, int64_t image, int64_t flat) {
  const int lane = threadIdx.x % 32;
  const uint8_t* taken = s.taken + image * s.anchors;
  T* peak = s.peaks + flat * s.chunks;
  for (;;) {
    auto chunk = Indexed<T>::none(), head = Indexed<T>::none();
    for (int64_t i = lane; i < s.chunks; i += 32)
      if (const Indexed<T> own{peak[i], i}; own.before(chunk)) chunk = own;  // never a NaN
    chunk = warp_first(chunk);
    const bool any = chunk.index != chunk.kNone;
    const int64_t c = any ? chunk.index : 0;
    for (int64_t i = c * s.chunk + lane; any && i < min_of(s.anchors, (c + 1) * s.chunk); i += 32)
      if (const Indexed<T> own{column(i), i}; !taken[i] && own.before(head)) head = own;
    head = warp_first(head);
    const bool found = head.index != head.kNone;
    __syncwarp();
    if (lane == 0) {
      if (any) peak[c] = found ? head.value : std::numeric_limits<T>::quiet_NaN();
      s.value[flat] = found ? head.value : T(0), s.anchor[flat] = found ? head.index : -1;
    }
    __syncwarp();
    if (!any || (found && head.value == chunk.value)) return;
  }
}

// Block b works on image b. Round by round: heads are taken in order, the largest first, up to the first whose anchor
// another has taken; all of these are matched at once. A warp then finds a new head for each box that lost its anchor.
template <class T, class Columns>
__global__ void __launch_bounds__(kCompactThreads) assign_kernel(Columns pairs, Greedy<T> s) {
  __shared__ T values[kCompactThreads / 32];
  __shared__ int64_t boxes[kCompactThreads / 32];
  const int t = static_cast<int>(threadIdx.x), warp = t / 32, warps = kCompactThreads / 32;
  for (int64_t image = blockIdx.x; image < s.batch; image += gridDim.x) {
    const int64_t from = pairs.begin(image), n = pairs.count(image);
    T* value = s.value + from;
    int64_t *anchor = s.anchor + from, *matches = s.matches + image * s.anchors;
    uint8_t *beaten = s.beaten + from, *taken = s.taken + image * s.anchors;
    // Whether the head of box g comes before that of box h.
    const auto before = [&](int64_t g, int64_t h) {
      return value[g] != value[h] ? value[g] > value[h] : anchor[g] != anchor[h] ? anchor[g] < anchor[h] : g < h;
    };
    // The box, out of those for which `some` holds, whose head comes first; -1 for none.
    const auto first_of = [&](auto some) {
      int64_t first = -1;
      for (int64_t g = t; g < n; g += kCompactThreads)
        if (anchor[g] >= 0 && some(g) && (first < 0 || before(g, first))) first = g;
      first = warp_reduce(first, [&](int64_t g, int64_t h) { return g < 0 || (h >= 0 && before(h, g)) ? h : g; });
      __syncthreads();
      if (t % 32 == 0) boxes[warp] = first;
      __syncthreads();
      for (int w = 0; w < warps; ++w)
        if (boxes[w] >= 0 && (first < 0 || before(boxes[w], first))) first = boxes[w];
      return first;
    };
    for (int64_t g = warp; g < n; g += warps) find_head(s, pairs.column(image, g), image, from + g);
    for (;;) {
      __syncthreads();
      for (int64_t g = t; g < n; g += kCompactThreads) {
        bool lost = false;
        for (int64_t h = 0; anchor[g] >= 0 && h < n && !lost; ++h) lost = anchor[h] == anchor[g] && before(h, g);
        beaten[g] = lost;
      }
      const int64_t first = first_of([](int64_t) { return true; });
      if (first < 0 || (Columns::kZeroIsLeast && value[first] == T(0))) break;
      const int64_t end = first_of([&](int64_t g) { return beaten[g] != 0; });
      for (int64_t g = t; g < n; g += kCompactThreads)
        beaten[g] = anchor[g] >= 0 && (end < 0 || before(g, end));  // now: is matched
      __syncthreads();
      for (int64_t g = t; g < n; g += kCompactThreads)
        if (beaten[g]) {
          const int64_t a = anchor[g];
          taken[a] = 1, matches[a] = g, s.ious[image * s.anchors + a] = value[g];
          anchor[g] = -1;
        }
      __syncthreads();
      for (int64_t g = warp; g < n; g += warps)
        if (anchor[g] >= 0 && taken[anchor[g]]) find_head(s, pairs.column(image, g), image, from + g);
    }
    // What is left is all 0: the boxes in turn take the anchors in turn.
    int64_t* list = s.list + from;
    const int64_t left =
        compact(n, n, [&](int64_t g) { return anchor[g] >= 0; }, [&](int64_t at, int64_t g) { list[at] = g; });
    __syncthreads();
    compact(
        s.anchors, left, [&](int64_t a) { return !taken[a]; },
        [&](int64_t at, int64_t a) { matches[a] = list[at], s.ious[image * s.anchors + a] = T(0); });
    __syncthreads();
  }
}

template <class T>
int scan(const MatchInput& input, int64_t chunk, T* peaks, int64_t* matches, T* ious, void* stream) {
  const int64_t chunks = blocks_of(input.anchors.count, chunk);
  return launch(scan_kernel<T>, dim3(grid_x(chunks), grid_yz(input.anchors.batch)), kThreads, stream, input, chunk,
                chunks, peaks, matches, ious);
}

int make_rising(MatchInput& input, int64_t* rising, void* stream) {
  const Ragged given = input.images;
  if (given.offsets == nullptr) return cudaSuccess;
  input.images.offsets = rising;
  return launch(rising_kernel, 1, 32, stream, given, rising);
}

// The rest of the greedy rule, once peaks, matches and IoUs are there.
template <class T, class Columns>
int assign(const Columns& columns, const Greedy<T>& s, void* stream) {
  return launch(assign_kernel<T, Columns>, grid_x(s.batch), kCompactThreads, stream, columns, s);
}

template <class T>
struct MaxIouState {
  T *peaks, *most;
  int64_t* rising;
};

template <class T>
MaxIouState<T> carve(void* base, const MatchInput& input, size_t* bytes) {
  const int64_t count = input.anchors.count, boxes = input.gt_boxes.count;
  Workspace w(base);
  MaxIouState<T> s{};
  s.peaks = w.take<T>(boxes * blocks_of(count, chunk_of(count, boxes, kSpan))), s.most = w.take<T>(boxes);
  s.rising = w.take<int64_t>(input.anchors.batch + 1);
  *bytes = w.used();
  return s;
}

}  // namespace

size_t match_max_iou_workspace(const MatchInput& input, bool allow_low_quality, bool float64) {
  if (!allow_low_quality) return 0;
  size_t bytes;
  if (float64) carve<double>(nullptr, input, &bytes);
  else carve<float>(nullptr, input, &bytes);
  return bytes;
}

template <class T>
int match_max_iou(const MatchInput& given, const MaxIouRule<T>& rule, int64_t* matches, T* ious, void* workspace,
                  void* stream) {
  MatchInput input = given;
  const int64_t boxes = input.gt_boxes.count, count = input.anchors.count;
  MaxIouState<T> s{};
  if (rule.allow_low_quality && boxes > 0) {
    size_t bytes;
    s = carve<T>(workspace, input, &bytes);
    BOXOPS_TRY(make_rising(input, s.rising, stream));
  }
  const int64_t chunk = chunk_of(count, boxes, kSpan);
  BOXOPS_TRY(scan(input, chunk, s.peaks, matches, ious, stream));
  if (s.peaks != nullptr)
    BOXOPS_TRY(launch(most_kernel<T>, grid_x(blocks_of(boxes, kThreads / 32)), kThreads, stream, boxes,
                      blocks_of(count, chunk), s.peaks, s.most));
  return launch(judge_kernel<T>, dim3(grid_x(blocks_of(count, kThreads)), grid_yz(input.anchors.batch)), kThreads,
                stream, input, rule, s.most, matches, ious);
}

namespace {

template <class T>
Greedy<T> carve_greedy(void* base, const MatchInput& input, size_t* bytes) {
  return carve<T>(base, input.anchors.batch, input.anchors.count, input.gt_boxes.count, kSpan, bytes);
}
template <class T>
Greedy<T> carve_greedy(void* base, const MatchMatrix& m, size_t* bytes) {
  return carve<T>(base, m.batch, m.anchors, m.batch * m.boxes, 32, bytes);
}
template <class Input>
size_t greedy_workspace(const Input& input, bool float64) {
  size_t bytes;
  if (float64) carve_greedy<double>(nullptr, input, &bytes);
  else carve_greedy<float>(nullptr, input, &bytes);
  return bytes;
}

}  // namespace

size_t match_greedy_workspace(const MatchInput& input, bool float64) { return greedy_workspace(input, float64); }
size_t match_greedy_matrix_workspace(const MatchMatrix& m, bool float64) { return greedy_workspace(m, float64); }

template <class T>
int match_greedy(const MatchInput& given, const GreedyRule<T>& rule, int64_t* matches, T* ious, void* workspace,
                 void* stream) {
  size_t bytes;
  Greedy<T> s = carve_greedy<T>(workspace, given, &bytes);
  s.matches = matches, s.ious = ious;
  MatchInput input = given;
  BOXOPS_TRY(make_rising(input, s.rising, stream));
  BOXOPS_TRY(scan(input, s.chunk, s.peaks, matches, ious, stream));
  BOXOPS_TRY(
      launch(threshold_kernel<T>, grid_x(blocks_of(s.batch * s.anchors, kThreads)), kThreads, stream, input, rule, s));
  return assign<T>(BoxColumns<T>{input}, s, stream);
}

template <class T>
int match_greedy_matrix(const MatchMatrix& m, const GreedyRule<T>& rule, int64_t* matches, T* ious, void* workspace,
                        void* stream) {
  size_t bytes;
  Greedy<T> s = carve_greedy<T>(workspace, m, &bytes);
  s.matches = matches, s.ious = ious;
  const MatrixColumns<T> columns{m};
  BOXOPS_TRY(
      launch(row_kernel<T>, grid_x(blocks_of(s.batch * s.anchors, kThreads / 32)), kThreads, stream, m, rule, s));
  BOXOPS_TRY(launch(column_kernel<T>, grid_x(blocks_of(s.batch * s.chunks * m.boxes, kThreads)), kThreads, stream,
                    columns, s));
  return assign<T>(columns, s, stream);
}

#define INSTANTIATE(T)                                                                                \
  template int match_max_iou<T>(const MatchInput&, const MaxIouRule<T>&, int64_t*, T*, void*, void*); \
  template int match_greedy<T>(const MatchInput&, const GreedyRule<T>&, int64_t*, T*, void*, void*);  \
  template int match_greedy_matrix<T>(const MatchMatrix&, const GreedyRule<T>&, int64_t*, T*, void*, void*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace boxops::cuda
