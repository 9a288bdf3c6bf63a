// match_greedy and match_greedy_matrix on the device. Neither strikes rows and columns of a matrix: every box (column)
// knows its head, the largest entry that is left to it, and round by round the heads in front are matched.
//   1. scan_kernel, or row_kernel and column_kernel for a given matrix: each anchor's best box and what it gets by that
//      if it stays free, each chunk's peak
//   2. assign_kernel: the greedy matches, a block per image
#include "common/compact.cuh"
#include "matching/matching_scan.cuh"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 128;  // but for assign_kernel; few, since a chunk is computed again for each box that it leads

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
      return iou_of(box, shape_of<Measure::kIoU>(load_box_at_once<T>(anchors, image, a)));
    }
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
    __device__ T operator()(int64_t a) const {
      const T v = load<T>(matrix.data, matrix.dtype, start + a * matrix.anchor_stride);
      return v == v ? v : -std::numeric_limits<T>::infinity();
    }
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
  s.taken = w.take<uint8_t>(batch * anchors);
  *bytes = w.used();
  return s;
}

// Turns the best box of each of a thread's anchors into its match by the threshold.
template <class T>
struct ByThreshold {
  static constexpr bool kHasPeaks = true;
  GreedyRule<T> rule;
  uint8_t* taken;
  int64_t* matches;
  T* ious;

  __device__ void operator()(int64_t image, const ImageBoxes& boxes, const SpanAnchors<T>& own, BoxTile<T>&) const {
    own.for_each([&](int k, int64_t a) {
      const int64_t at = image * own.count + a;
      const bool keeps = rule.has_threshold && boxes.count > 0 && own.ious[k] >= rule.threshold;
      matches[at] = keeps ? own.boxes[k] : -1, ious[at] = own.ious[k], taken[at] = 0;
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
    for (int64_t a = c * s.chunk; a < min_of(s.anchors, (c + 1) * s.chunk); ++a) max = max_of(column(a), max);
    s.peaks[(image * boxes + g) * s.chunks + c] = max;
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

// The heads of one image's boxes.
template <class T>
struct Heads {
  int64_t n;
  T* value;
  int64_t* anchor;

  // Whether the head of box g comes before that of box h.
  __device__ bool before(int64_t g, int64_t h) const {
    return value[g] != value[h] ? value[g] > value[h] : anchor[g] != anchor[h] ? anchor[g] < anchor[h] : g < h;
  }
  // Whether the anchor of box g's head is also that of a head before it.
  __device__ bool is_beaten(int64_t g) const {
    for (int64_t h = 0; h < n; ++h)
      if (anchor[h] == anchor[g] && before(h, g)) return true;
    return false;
  }
};

constexpr int kWarps = kCompactThreads / 32;  // of a block of assign_kernel

// The box whose head comes first among those for which `holds`, for all threads of the block, each of which looks at
// every kCompactThreads-th box; -1: none.
template <class T, class Holds>
__device__ int64_t first_of_block(const Heads<T>& heads, int64_t (&of_warp)[kWarps], Holds holds) {
  const int t = static_cast<int>(threadIdx.x);
  int64_t first = -1;
  for (int64_t g = t; g < heads.n; g += kCompactThreads)
    if (heads.anchor[g] >= 0 && (first < 0 || heads.before(g, first)) && holds(g)) first = g;
  const auto earlier = [&](int64_t g, int64_t h) { return g < 0 || (h >= 0 && heads.before(h, g)) ? h : g; };
  first = warp_reduce(first, earlier);
  __syncthreads();
  if (t % 32 == 0) of_warp[t / 32] = first;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) first = earlier(first, of_warp[w]);
  return first;
}

// A thread matches those of its boxes whose heads come before that of box `end`, which no thread changes; -1: all.
template <class T>
__device__ void match_heads(const Greedy<T>& s, const Heads<T>& heads, int64_t image, int64_t end) {
  uint8_t* taken = s.taken + image * s.anchors;
  for (int64_t g = threadIdx.x; g < heads.n; g += kCompactThreads) {
    if (heads.anchor[g] < 0 || (end >= 0 && !heads.before(g, end))) continue;
    const int64_t a = heads.anchor[g];
    taken[a] = 1, s.matches[image * s.anchors + a] = g, s.ious[image * s.anchors + a] = heads.value[g];
    heads.anchor[g] = -1;
  }
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

// Block b works on image b. Round by round: heads are taken in order, the largest first, up to the first whose anchor
// another has taken; all of these are matched at once. A warp then finds a new head for each box that lost its anchor.
template <class T, class Columns>
__global__ void __launch_bounds__(kCompactThreads, sizeof(T) == 8 ? 1 : 2) assign_kernel(Columns pairs, Greedy<T> s) {
  __shared__ int64_t of_warp[kWarps];
  const int64_t warp = threadIdx.x / 32;
  for (int64_t image = blockIdx.x; image < s.batch; image += gridDim.x) {
    const ImageBoxes boxes = pairs.of_image(image);
    const int64_t from = boxes.begin;
    const Heads<T> heads{boxes.count, s.value + from, s.anchor + from};
    const uint8_t* taken = s.taken + image * s.anchors;
    for (int64_t g = warp; g < heads.n; g += kWarps) find_head(s, pairs.column(image, from + g), image, from + g);
    for (;;) {
      __syncthreads();
      const int64_t first = first_of_block(heads, of_warp, [](int64_t) { return true; });
      if (first < 0 || (Columns::kZeroIsLeast && heads.value[first] == T(0))) break;
      match_heads(s, heads, image, first_of_block(heads, of_warp, [&](int64_t g) { return heads.is_beaten(g); }));
      __syncthreads();
      for (int64_t g = warp; g < heads.n; g += kWarps)
        if (heads.anchor[g] >= 0 && taken[heads.anchor[g]])
          find_head(s, pairs.column(image, from + g), image, from + g);
    }
    match_rest(s, heads, image, s.list + from);
    __syncthreads();
  }
}

// The rest of the greedy rule, once peaks, matches and IoUs are there.
template <class T, class Columns>
int assign(const Columns& columns, const Greedy<T>& s, void* stream) {
  return launch(assign_kernel<T, Columns>, grid_x(s.batch), kCompactThreads, stream, columns, s);
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
    const ByThreshold<T> by_threshold{GreedyRule<T>(options), s.taken, matches, s.ious};
    BOXOPS_TRY(scan(input, kThreads, s.chunk, s.peaks, by_threshold, stream));
    return assign<T>(BoxColumns<T>{input}, s, stream);
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
    return assign<T>(columns, s, stream);
  });
}

}  // namespace boxops::cuda
