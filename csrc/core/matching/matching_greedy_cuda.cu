// match_greedy and match_greedy_matrix on the device. Neither strikes rows and columns of a matrix: every box (column)
// knows its head, the largest entry that is left to it, and round by round the heads in front are matched.
//   1. scan_kernel, or row_kernel and column_kernel for a given matrix: each anchor's best box and what it gets by that
//      if it stays free, each chunk's peak
//   2. assign_kernel: the first heads, a block per box; of an image's blocks the last to end goes on to the matches
#include "common/compact.cuh"
#include "common/last_block.cuh"
#include "matching/matching_scan.cuh"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 256;  // of scan_kernel; few, since a chunk is computed again for each box that it leads

// The columns of the greedy rule: of IoUs to be computed, or of a given matrix. An entry is made of what is loaded of
// an anchor.
template <class T>
struct BoxColumns {
  MatchInput input;
  static constexpr bool kZeroIsLeast = true;
  struct Column {
    Boxes anchors;
    int64_t image;
    Shape<T> box;
    __device__ Box<T> load(int64_t a) const { return load_box_at_once<T, true>(anchors, image, a); }
    __device__ T entry(const Box<T>& anchor) const { return iou_of(box, shape_of<Measure::kIoU>(anchor)); }
  };
  __device__ ImageBoxes of_image(int64_t image) const { return boxes_of(input.images, image); }
  __device__ Column column(int64_t image, int64_t flat) const {
    return {input.anchors, image, shape_of<Measure::kIoU>(load_box_at_once<T>(input.gt_boxes, 0, flat))};
  }
};

template <class T>
struct MatrixColumns {
  MatchMatrix matrix;
  static constexpr bool kZeroIsLeast = false;
  struct Column {
    MatchMatrix matrix;
    int64_t start;
    __device__ T load(int64_t a) const {
      return boxops::load<T>(matrix.data, matrix.dtype, start + a * matrix.anchor_stride);
    }
    __device__ T entry(T v) const { return v == v ? v : -std::numeric_limits<T>::infinity(); }
  };
  __device__ ImageBoxes of_image(int64_t image) const { return {image * matrix.boxes, matrix.boxes}; }
  __device__ Column column(int64_t image, int64_t flat) const {
    return {matrix, image * matrix.batch_stride + (flat - image * matrix.boxes) * matrix.box_stride};
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
  uint8_t* taken;   // [B, A]
  unsigned* done;   // [B] blocks that have found their heads; 0 before the second launch
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
  s.taken = w.take<uint8_t>(batch * anchors), s.done = w.take<unsigned>(batch);
  *bytes = w.used();
  return s;
}

// Turns the best box of each of a thread's anchors into its match by the threshold.
template <class T>
struct ByThreshold {
  static constexpr bool kHasPeaks = true;
  GreedyRule<T> rule;
  Greedy<T> s;

  __device__ void operator()(int64_t image, const ImageBoxes& boxes, const SpanAnchors<T>& own, BoxTile<T>&) const {
    own.for_each([&](int k, int64_t a) {
      const int64_t at = image * own.count + a;
      const bool keeps = rule.has_threshold && boxes.count > 0 && own.ious[k] >= rule.threshold;
      s.matches[at] = keeps ? own.boxes[k] : -1, s.ious[at] = own.ious[k], s.taken[at] = 0;
      if (a == 0) s.done[image] = 0;
    });
  }
};

// A warp finds the best box of one row of the matrix, and its match by the threshold.
template <class T>
__global__ void __launch_bounds__(kThreads) row_kernel(MatchMatrix m, GreedyRule<T> rule, Greedy<T> s) {
  for (const int64_t at : grid_stride<kThreads, 32>(m.batch * m.anchors)) {
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
    if (at % m.anchors == 0) s.done[at / m.anchors] = 0;
    s.matches[at] = m.boxes > 0 && rule.has_threshold && best.value >= rule.threshold ? best.index : -1;
  }
}

// A thread finds the largest entry of one column in one chunk; neighbours read neighbouring columns.
template <class T>
__global__ void __launch_bounds__(kThreads) column_kernel(MatrixColumns<T> pairs, Greedy<T> s) {
  const int64_t boxes = pairs.matrix.boxes;
  for (const int64_t at : grid_stride<kThreads>(s.batch * s.chunks * boxes)) {
    const int64_t g = at % boxes, c = at / boxes % s.chunks, image = at / boxes / s.chunks;
    const auto column = pairs.column(image, image * boxes + g);
    T max = -std::numeric_limits<T>::infinity();
    for (int64_t a = c * s.chunk; a < min_of(s.anchors, (c + 1) * s.chunk); ++a)
      max = max_of(column.entry(column.load(a)), max);
    s.peaks[(image * boxes + g) * s.chunks + c] = max;
  }
}

// The first of value(load(i)), for begin <= i < end, among every `members`-th from this thread's own; a NaN is not
// there. A warp takes four at a time, so that their loads are in flight together.
template <int members, class T, class Load, class Value>
__device__ Indexed<T> first_of(int64_t begin, int64_t end, Load load, Value value) {
  constexpr int kAtOnce = members == 32 ? 4 : 1;
  auto first = Indexed<T>::none();
  for (int64_t i = begin + threadIdx.x % members; i < end; i += kAtOnce * members) {
    const auto at = [&](int k) { return min_of(i + k * members, end - 1); };  // the last one twice does no harm
    decltype(load(i)) loaded[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) loaded[k] = load(at(k));
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k)
      if (const Indexed<T> own{value(loaded[k]), at(k)}; own.before(first)) first = own;
  }
  return first;
}

// The first of a column's peaks, and the first entry of a chunk of it that is not taken.
template <int members, class T>
__device__ Indexed<T> first_peak(const Greedy<T>& s, int64_t flat) {
  const T* peak = s.peaks + flat * s.chunks;
  return first_of<members, T>(0, s.chunks, [&](int64_t c) { return peak[c]; }, [](T v) { return v; });
}
template <int members, class T, class Column>
__device__ Indexed<T> first_entry(const Greedy<T>& s, const Column& column, int64_t image, int64_t chunk) {
  const uint8_t* taken = s.taken + image * s.anchors;
  struct Loaded {
    decltype(column.load(0)) entry;
    bool taken;
  };
  return first_of<members, T>(
      chunk * s.chunk, min_of(s.anchors, (chunk + 1) * s.chunk),
      [&](int64_t a) { return Loaded{column.load(a), taken[a] != 0}; },
      [&](const Loaded& l) { return l.taken ? std::numeric_limits<T>::quiet_NaN() : column.entry(l.entry); });
}

constexpr int kWarps = kCompactThreads / 32;  // of a block of assign_kernel

// The first of what `members` threads have, a warp or the block, for all of them; a block waits before and within.
template <int members, class T>
__device__ Indexed<T> first_of_all(Indexed<T> own, Indexed<T> (&of_warp)[kWarps]) {
  own = warp_first(own);
  if constexpr (members == 32) return own;
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = own;
  __syncthreads();
  return warp_first(of_warp[threadIdx.x % kWarps]);
}

// The heads of one image's boxes.
template <class T>
struct Heads {
  int64_t n;
  T* value;
  int64_t* anchor;

  // They come by falling value, then by rising anchor and box.
  __device__ Indexed<T> place(int64_t g) const {
    return anchor[g] < 0 ? Indexed<T>::none() : Indexed<T>{value[g], anchor[g] * n + g};
  }
};

// A warp or the block finds the head of one column: it looks into the chunk that promises most, until that keeps its
// promise.
template <int members, class T, class Column>
__device__ void find_head(const Greedy<T>& s, const Column& column, int64_t image, int64_t flat, const Heads<T>& heads,
                          int64_t g, Indexed<T> (&of_warp)[kWarps]) {
  const auto wait = [] { members == 32 ? __syncwarp() : __syncthreads(); };
  for (;;) {
    const Indexed<T> peak = first_of_all<members>(first_peak<members>(s, flat), of_warp);
    Indexed<T> head = peak;
    if (peak.index != peak.kNone)
      head = first_of_all<members>(first_entry<members>(s, column, image, peak.index), of_warp);
    const bool found = head.index != head.kNone, keeps = found && head.value == peak.value;
    __syncwarp();  // its lanes have read the peaks; those of a block met above
    if (threadIdx.x % members == 0) {
      if (peak.index != peak.kNone && !keeps)
        s.peaks[flat * s.chunks + peak.index] = found ? head.value : std::numeric_limits<T>::quiet_NaN();
      heads.value[g] = found ? head.value : T(0), heads.anchor[g] = found ? head.index : -1;
    }
    if (peak.index == peak.kNone || keeps) return;
    wait();
  }
}

constexpr int kStaged = 512;  // heads of an image that lie in shared memory; where there are more, none do
template <class T>
struct Round {
  T value[kStaged];
  int64_t anchor[kStaged];
  Indexed<T> of_warp[kWarps];  // for find_head
  Indexed<T> beaten[kWarps];   // the first beaten head that each warp has seen
  int lost;                    // how many heads have lost their anchors
};

// A warp looks at one head after another, and a lane compares it with every 32nd: beaten is one whose anchor is that of
// a head before it. Says whether the warp has seen a head, with `above_zero` one of more than 0.
template <bool above_zero, class T>
__device__ bool look(const Heads<T>& heads, Round<T>& round) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto beaten = Indexed<T>::none();
  bool left = false;
  for (int64_t g = warp; g < heads.n; g += kWarps) {
    const Indexed<T> own = heads.place(g);
    if (own.index == own.kNone) continue;
    left |= !above_zero || own.value > T(0);
    const int64_t a = heads.anchor[g];
    bool is_beaten = false;
    for (int64_t h = lane; h < heads.n; h += 32) {
      const T value = heads.value[h];
      is_beaten |= (heads.anchor[h] == a) & ((value > own.value) | ((value == own.value) & (h < g)));
    }
    is_beaten = __any_sync(kFullMask, is_beaten);
    if (is_beaten && own.before(beaten)) beaten = own;
  }
  if (lane == 0) round.beaten[warp] = beaten;
  if (threadIdx.x == 0) round.lost = 0;
  return left;
}

// A thread matches those of its boxes whose heads come before `end`.
template <class T>
__device__ void match_heads(const Greedy<T>& s, const Heads<T>& heads, int64_t image, const Indexed<T>& end) {
  uint8_t* taken = s.taken + image * s.anchors;
  for (int64_t g = threadIdx.x; g < heads.n; g += kCompactThreads) {
    if (!heads.place(g).before(end)) continue;
    const int64_t a = heads.anchor[g];
    taken[a] = 1, s.matches[image * s.anchors + a] = g, s.ious[image * s.anchors + a] = heads.value[g];
    heads.anchor[g] = -1;
  }
}

// The block finds new heads for the boxes that lost their anchors: for a few together, else a warp for each.
template <class T, class Columns>
__device__ void find_lost_heads(const Columns& pairs, const Greedy<T>& s, const Heads<T>& heads, int64_t image,
                                int64_t from, Round<T>& round) {
  const uint8_t* taken = s.taken + image * s.anchors;
  int64_t* list = s.list + from;
  for (int64_t g = threadIdx.x; g < heads.n; g += kCompactThreads)
    if (heads.anchor[g] >= 0 && taken[heads.anchor[g]]) list[atomicAdd(&round.lost, 1)] = g;
  __syncthreads();
  const int lost = round.lost, warp = static_cast<int>(threadIdx.x) / 32;
  const auto find = [&](auto members, int i) {
    const int64_t g = list[i];
    find_head<members>(s, pairs.column(image, from + g), image, from + g, heads, g, round.of_warp);
  };
  if (lost <= kWarps / 4)
    for (int i = 0; i < lost; ++i) find(std::integral_constant<int, kCompactThreads>(), i);
  else
    for (int i = warp; i < lost; i += kWarps) find(std::integral_constant<int, 32>(), i);
}

// Where all that is left is 0: the boxes in turn take the anchors in turn.
template <class T>
__device__ void match_rest(const Greedy<T>& s, const Heads<T>& heads, int64_t image, int64_t* list) {
  const uint8_t* taken = s.taken + image * s.anchors;
  const int64_t left = compact(
      heads.n, heads.n, [&](int64_t g) { return heads.anchor[g] >= 0; }, [&](int64_t at, int64_t g) { list[at] = g; });
  __syncthreads();
  compact(
      s.anchors, left, [&](int64_t a) { return !taken[a]; },
      [&](int64_t at, int64_t a) {
        s.matches[image * s.anchors + a] = list[at], s.ious[image * s.anchors + a] = T(0);
      });
}

// A block matches the boxes of one image. Round by round: heads are taken in order, the largest first, up to the first
// whose anchor another has taken; all of these are matched at once. Those who lost their anchors find new heads.
template <class T, class Columns>
__device__ void match_image(const Columns& pairs, const Greedy<T>& s, const ImageBoxes& boxes, int64_t image,
                            Round<T>& round) {
  Heads<T> heads{boxes.count, s.value + boxes.begin, s.anchor + boxes.begin};
  if (heads.n <= kStaged) {
    if (const int64_t g = threadIdx.x; g < heads.n) round.value[g] = heads.value[g], round.anchor[g] = heads.anchor[g];
    heads.value = round.value, heads.anchor = round.anchor;
    __syncthreads();
  }
  while (__syncthreads_or(look<Columns::kZeroIsLeast>(heads, round))) {
    const Indexed<T> beaten = warp_first(round.beaten[threadIdx.x % kWarps]);
    match_heads(s, heads, image, beaten);
    if (beaten.index == beaten.kNone) return;
    __syncthreads();
    find_lost_heads(pairs, s, heads, image, boxes.begin, round);
    __syncthreads();
  }
  if (Columns::kZeroIsLeast) match_rest(s, heads, image, s.list + boxes.begin);
}

// Block (g, image) finds the heads of boxes g, g + gridDim.x, ..., while no anchor is taken and all peaks are kept.
template <class T, class Columns>
__global__ void __launch_bounds__(kCompactThreads) assign_kernel(Columns pairs, Greedy<T> s) {
  __shared__ Round<T> round;
  for (int64_t image = blockIdx.y; image < s.batch; image += gridDim.y) {
    const ImageBoxes boxes = pairs.of_image(image);
    const Heads<T> heads{boxes.count, s.value + boxes.begin, s.anchor + boxes.begin};
    for (int64_t g = blockIdx.x; g < boxes.count; g += gridDim.x)
      find_head<kCompactThreads>(s, pairs.column(image, boxes.begin + g), image, boxes.begin + g, heads, g,
                                 round.of_warp);
    if (is_last_block(&s.done[image], gridDim.x)) match_image(pairs, s, boxes, image, round);
    __syncthreads();
  }
}

// The rest of the greedy rule, once peaks, matches and IoUs are there; `boxes`: of all images.
template <class T, class Columns>
int assign(const Columns& columns, const Greedy<T>& s, int64_t boxes, void* stream) {
  if (s.batch == 0 || s.anchors == 0) return cudaSuccess;
  const dim3 grid(grid_x(blocks_of(boxes, s.batch)), grid_yz(s.batch));
  return launch(assign_kernel<T, Columns>, grid, kCompactThreads, stream, columns, s);
}

template <class T>
Greedy<T> carve_greedy(void* base, const MatchInput& input, size_t* bytes) {
  return carve<T>(base, input.anchors.batch, input.anchors.count, input.gt_boxes.count, span_of(kThreads), bytes);
}
template <class T>
Greedy<T> carve_greedy(void* base, const MatchMatrix& m, size_t* bytes) {
  return carve<T>(base, m.batch, m.anchors, m.batch * m.boxes, 32, bytes);
}
template <class Input>
size_t greedy_workspace(const Input& input, DType dtype) {
  size_t bytes;
  with_compute_type(dtype, [&](auto t) { carve_greedy<decltype(t)>(nullptr, input, &bytes); });
  return bytes;
}

}  // namespace

size_t match_greedy_workspace(const MatchInput& input) { return greedy_workspace(input, compute_type_of(input)); }
size_t match_greedy_matrix_workspace(const MatchMatrix& m) { return greedy_workspace(m, m.dtype); }

int match_greedy(const MatchInput& input, const GreedyOptions& options, int64_t* matches, void* ious, void* workspace,
                 void* stream) {
  return with_compute_type(compute_type_of(input), [&](auto t) -> int {
    using T = decltype(t);
    size_t bytes;
    Greedy<T> s = carve_greedy<T>(workspace, input, &bytes);
    s.matches = matches, s.ious = static_cast<T*>(ious);
    const ByThreshold<T> by_threshold{GreedyRule<T>(options), s};
    BOXOPS_TRY(scan(input, kThreads, s.chunk, s.peaks, by_threshold, stream));
    return assign<T>(BoxColumns<T>{input}, s, input.gt_boxes.count, stream);
  });
}

int match_greedy_matrix(const MatchMatrix& m, const GreedyOptions& options, int64_t* matches, void* ious,
                        void* workspace, void* stream) {
  return with_compute_type(m.dtype, [&](auto t) -> int {
    using T = decltype(t);
    size_t bytes;
    Greedy<T> s = carve_greedy<T>(workspace, m, &bytes);
    s.matches = matches, s.ious = static_cast<T*>(ious);
    const MatrixColumns<T> columns{m};
    BOXOPS_TRY(launch(row_kernel<T>, grid_x(blocks_of(s.batch * s.anchors, kThreads / 32)), kThreads, stream, m,
                      GreedyRule<T>(options), s));
    BOXOPS_TRY(launch(column_kernel<T>, grid_x(blocks_of(s.batch * s.chunks * m.boxes, kThreads)), kThreads, stream,
                      columns, s));
    return assign<T>(columns, s, m.batch * m.boxes, stream);
  });
}

}  // namespace boxops::cuda
