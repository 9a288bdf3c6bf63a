// Greedy NMS on the device, in O(N) memory and with a number of launches known beforehand.
//
// Boxes are sorted by (image, group, falling score); a run of equal (image, group) is a segment.
// Then, kTile sorted boxes at a time:
//   1. kept_kernel    boxes of the segment that began before this tile, against that segment's kept boxes;
//   2. mask_kernel    all pairs of the tile, as a bit mask;
//   3. resolve_kernel one block walks the tile's mask in order and appends the kept boxes.
// A kept box is only ever needed by its own segment, and only the last segment of a tile reaches
// into the next, so one number tells where its kept boxes begin. At the end the flags are read back
// in the order of the scores.
//
// The kernels are templates on what is kept of a box: Shape<T>, or RotatedBox<T> for rotated NMS.
//
// Floor: the pairs of steps 1 and 2 (about 16 operations each; 10 for rotated boxes whose hulls do not meet, 220 for
// others), N kept / 2 of them at most.
#include "common/compact.cuh"
#include "common/cuda_utils.cuh"
#include "common/rotated_geometry.h"
#include "nms/nms.h"

namespace boxops::cuda {
namespace {

constexpr int64_t kTile = 4096;
constexpr int kWords = kTile / 64;
constexpr int kThreads = 256;
constexpr int kStripes = 64;  // blocks that share the kept boxes
using Word = unsigned long long;

template <class S>
struct State {
  uint64_t *keys, *keys_sorted;
  int64_t *values, *order, *place;  // order: flat indices by (image, score); place: ranks by (image, group, score)
  S *boxes, *kept;                  // by place; the kept ones so far
  int64_t* start;                   // by place: where its segment starts
  uint8_t *valid, *keep;            // by place: is a candidate; by rank: is kept
  Word *mask, *removed;             // of the tile
  int64_t* counts;                  // [0] kept so far, [1] where those of the open segment begin
  void* sort;
  size_t sort_bytes;
};

template <class S>
State<S> carve(void* base, int64_t n, size_t* bytes) {
  Workspace w(base);
  State<S> s;
  s.keys = w.take<uint64_t>(n), s.keys_sorted = w.take<uint64_t>(n);
  s.values = w.take<int64_t>(n), s.order = w.take<int64_t>(n), s.place = w.take<int64_t>(n);
  s.boxes = w.take<S>(n), s.kept = w.take<S>(n);
  s.start = w.take<int64_t>(n), s.valid = w.take<uint8_t>(n), s.keep = w.take<uint8_t>(n);
  s.mask = w.take<Word>(min_of(n, kTile) * kWords), s.removed = w.take<Word>(kWords);
  s.counts = w.take<int64_t>(2);
  s.sort_bytes = sort_pairs_workspace(n);
  s.sort = w.take<char>(static_cast<int64_t>(s.sort_bytes));
  *bytes = w.used();
  return s;
}

template <class T>
__device__ void fetch(const Boxes& boxes, int64_t batch, int64_t i, Shape<T>* shape) {
  *shape = shape_of<Measure::kIoU>(load_box<T>(boxes, batch, i));
}
template <class T>
__device__ void fetch(const Boxes& boxes, int64_t batch, int64_t i, RotatedBox<T>* box) {
  *box = load_rotated_box<T>(boxes, batch, i);
}

enum class Key { kScore, kImage, kGroup };

// A thread writes the sort key of one element; `from` maps places to flat indices, null for identity.
__global__ void key_kernel(NmsInput input, Key kind, const int64_t* from, const int64_t* by, int64_t n, uint64_t* keys,
                           int64_t* values) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t value = from == nullptr ? i : from[i], flat = by == nullptr ? value : by[value];
    const int64_t batch = flat / input.boxes.count, box = flat % input.boxes.count;
    keys[i] = kind == Key::kScore   ? score_key(input.scores, batch, box)
              : kind == Key::kImage ? static_cast<uint64_t>(batch)
                                    : group_key(input.groups, batch, box);
    values[i] = value;
  }
}

__global__ void iota_kernel(int64_t n, int64_t* out) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x)
    out[i] = i;
}

// Whether the box at place i lies in the segment of the box with this flat index, or behind it.
template <class S>
__device__ bool reaches(const NmsInput& input, const State<S>& s, int64_t i, int64_t flat) {
  const int64_t n = input.boxes.count, other = s.order[s.place[i]];
  if (other / n != flat / n || !input.has_groups) return other / n >= flat / n;
  return group_key(input.groups, other / n, other % n) >= group_key(input.groups, flat / n, flat % n);
}

// A thread fetches one box to its place, finds where its segment starts by bisection, and says
// whether it is a candidate.
template <class S>
__global__ void gather_kernel(NmsInput input, bool thresholded, double score_threshold, int64_t n, State<S> s) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t flat = s.order[s.place[i]], batch = flat / input.boxes.count, box = flat % input.boxes.count;
    fetch(input.boxes, batch, box, &s.boxes[i]);
    s.valid[i] = !thresholded || score_exceeds(input.scores, batch, box, score_threshold);
    int64_t low = 0, high = i;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (reaches(input, s, middle, flat)) high = middle;
      else low = middle + 1;
    }
    s.start[i] = low;
    if (i == 0) s.counts[0] = s.counts[1] = 0;
  }
}

// A thread prepares one word of the tile's removed bits: set for what is no candidate.
template <class S>
__global__ void start_kernel(State<S> s, int64_t tile, int64_t n) {
  Word word = 0;
  for (int bit = 0; bit < 64; ++bit) {
    const int64_t i = tile + int64_t(threadIdx.x) * 64 + bit;
    if (i >= n || !s.valid[i]) word |= Word(1) << bit;
  }
  s.removed[threadIdx.x] = word;
}

// Block (x, y): kThreads boxes of the tile, one per thread, against every kStripes-th chunk of the
// open segment's kept boxes, a chunk in shared memory at a time.
template <class S>
__global__ void __launch_bounds__(kThreads)
    kept_kernel(State<S> s, int64_t tile, int64_t n, typename S::Scalar threshold, int64_t limit) {
  __shared__ S chunk[kThreads];
  const int64_t i = tile + int64_t(blockIdx.x) * kThreads + threadIdx.x, kept = s.counts[0], begin = s.counts[1];
  const bool open = i < n && s.start[i] < tile;
  if (!__syncthreads_or(open)) return;
  S box;
  if (open) box = s.boxes[i];
  bool gone = open && kept - begin >= limit;
  for (int64_t first = begin + int64_t(blockIdx.y) * kThreads; first < kept; first += int64_t(kStripes) * kThreads) {
    const int m = static_cast<int>(min_of<int64_t>(kThreads, kept - first));
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < m) chunk[threadIdx.x] = s.kept[first + threadIdx.x];
    __syncthreads();
    for (int j = 0; j < m && open && !gone; ++j) gone = iou_of(chunk[j], box) > threshold;
  }
  if (gone) atomicOr(&s.removed[(i - tile) / 64], Word(1) << ((i - tile) % 64));
}

// Block (x, y), y <= x: thread t compares row box 64 y + t with the 64 column boxes of block x and
// writes one word: bit c is set where row and column share a segment and overlap too much.
template <class S>
__global__ void __launch_bounds__(64) mask_kernel(State<S> s, int64_t tile, int64_t n, typename S::Scalar threshold) {
  if (blockIdx.y > blockIdx.x) return;
  __shared__ S columns[64];
  __shared__ int64_t starts[64];
  const int64_t column = tile + int64_t(blockIdx.x) * 64, row = tile + int64_t(blockIdx.y) * 64 + threadIdx.x;
  const int m = static_cast<int>(min_of<int64_t>(64, n - column));
  if (static_cast<int>(threadIdx.x) < m) {
    columns[threadIdx.x] = s.boxes[column + threadIdx.x];
    starts[threadIdx.x] = s.start[column + threadIdx.x];
  }
  __syncthreads();
  if (row >= n) return;
  const int64_t start = s.start[row];
  const S box = s.boxes[row];
  Word word = 0;
  for (int c = blockIdx.x == blockIdx.y ? threadIdx.x + 1 : 0; c < m && starts[c] == start; ++c)
    if (iou_of(box, columns[c]) > threshold) word |= Word(1) << c;
  s.mask[(row - tile) * kWords + blockIdx.x] = word;
}

// One block. For each 64 boxes in turn: thread 0 settles them by their own 64 x 64 bits, then all
// threads strike what the kept ones suppress further on. Last, the kept boxes are appended.
template <class S>
__global__ void __launch_bounds__(1024) resolve_kernel(State<S> s, int64_t tile, int64_t n) {
  __shared__ Word removed[kWords], diagonal[64], kept[kWords];
  __shared__ int offset[kWords + 1];
  const int boxes = static_cast<int>(min_of(kTile, n - tile)), words = (boxes + 63) / 64, t = threadIdx.x;
  if (t < words) removed[t] = s.removed[t];
  for (int g = 0; g < words; ++g) {
    const int rows = min_of(64, boxes - g * 64);
    if (t < rows) diagonal[t] = s.mask[(int64_t(g) * 64 + t) * kWords + g];
    __syncthreads();
    if (t == 0) {
      Word gone = removed[g], stay = 0;
#pragma unroll 8
      for (int r = 0; r < rows; ++r) {
        const Word bit = Word(1) << r;
        if (!(gone & bit)) stay |= bit, gone |= diagonal[r];
      }
      kept[g] = stay;
    }
    __syncthreads();
    for (int at = t; at < (words - g - 1) * 16; at += blockDim.x) {  // 16 threads share a word, 4 rows each
      const int word = g + 1 + at / 16;
      Word strike = 0;
      for (int r = at % 16; r < rows; r += 16)
        if (kept[g] >> r & 1) strike |= s.mask[(int64_t(g) * 64 + r) * kWords + word];
      if (strike) atomicOr(&removed[word], strike);
    }
  }
  if (t == 0) {
    offset[0] = 0;
    for (int g = 0; g < words; ++g) offset[g + 1] = offset[g] + __popcll(kept[g]);
  }
  __syncthreads();
  const int64_t before = s.counts[0];
  const auto kept_before = [&](int i) {
    return before + offset[i / 64] + __popcll(kept[i / 64] & ((Word(1) << (i % 64)) - 1));
  };
  for (int i = t; i < boxes; i += blockDim.x) {
    const bool stays = kept[i / 64] >> (i % 64) & 1;
    if (stays) s.kept[kept_before(i)] = s.boxes[tile + i];
    s.keep[s.place[tile + i]] = stays;
  }
  __syncthreads();
  if (t == 0) {
    const int64_t open = s.start[tile + boxes - 1];  // the segment that may reach into the next tile
    if (open >= tile) s.counts[1] = kept_before(static_cast<int>(open - tile));
    s.counts[0] = before + offset[words];
  }
}

// Block b writes the first `limit` kept indices of image b by falling score, then -1.
template <class S>
__global__ void __launch_bounds__(kCompactThreads)
    emit_kernel(State<S> s, int64_t count, int64_t limit, bool pad, int64_t* indices, int64_t* counts) {
  const int64_t first = int64_t(blockIdx.x) * count;
  int64_t* out = indices + int64_t(blockIdx.x) * limit;
  const int64_t written = compact(
      count, limit, [&](int64_t i) { return s.keep[first + i] != 0; },
      [&](int64_t at, int64_t i) { out[at] = s.order[first + i] - first; });
  if (pad)
    for (int64_t i = written + threadIdx.x; i < limit; i += blockDim.x) out[i] = -1;
  if (threadIdx.x == 0) counts[blockIdx.x] = written;
}

// Sorts `from` (places of flat indices, or of ranks through `by`) stably by one key into `to`.
template <class S>
int sort_by(const NmsInput& input, Key kind, const int64_t* from, const int64_t* by, int bits, int64_t n, int64_t* to,
            const State<S>& s, void* stream) {
  BOXOPS_TRY(
      launch(key_kernel, grid_x(blocks_of(n, kThreads)), kThreads, stream, input, kind, from, by, n, s.keys, s.values));
  return sort_pairs(s.keys, s.keys_sorted, s.values, to, n, bits, s.sort, s.sort_bytes, stream);
}

template <class S>
int run(const NmsInput& input, typename S::Scalar threshold, const PaddedOptions& options, bool pad, int64_t* indices,
        int64_t* counts, void* workspace, void* stream) {
  const int64_t batch = input.boxes.batch, n = batch * input.boxes.count;
  size_t bytes;
  State<S> s = carve<S>(workspace, n, &bytes);
  if (n > 0) {
    // Stable sorts from the least to the most significant key. `place` serves as the spare.
    BOXOPS_TRY(sort_by(input, Key::kScore, nullptr, nullptr, score_key_bits(input.scores.dtype), n,
                       batch > 1 ? s.place : s.order, s, stream));
    if (batch > 1) BOXOPS_TRY(sort_by(input, Key::kImage, s.place, nullptr, bits_of(batch), n, s.order, s, stream));
    if (input.has_groups) {
      const int bits = static_cast<int>(8 * size_of(input.groups.dtype));
      BOXOPS_TRY(sort_by(input, Key::kGroup, nullptr, s.order, bits, n, s.place, s, stream));
      if (batch > 1) BOXOPS_TRY(sort_by(input, Key::kImage, s.place, s.order, bits_of(batch), n, s.place, s, stream));
    } else {
      BOXOPS_TRY(launch(iota_kernel, grid_x(blocks_of(n, kThreads)), kThreads, stream, n, s.place));
    }
    BOXOPS_TRY(launch(gather_kernel<S>, grid_x(blocks_of(n, kThreads)), kThreads, stream, input,
                      options.has_score_threshold, options.score_threshold, n, s));
    for (int64_t tile = 0; tile < n; tile += kTile) {
      const unsigned blocks = static_cast<unsigned>(blocks_of(min_of(kTile, n - tile), 64));
      BOXOPS_TRY(launch(start_kernel<S>, 1, kWords, stream, s, tile, n));
      if (tile > 0)
        BOXOPS_TRY(launch(kept_kernel<S>, dim3(kTile / kThreads, kStripes), kThreads, stream, s, tile, n, threshold,
                          options.max_output));
      BOXOPS_TRY(launch(mask_kernel<S>, dim3(blocks, blocks), 64, stream, s, tile, n, threshold));
      BOXOPS_TRY(launch(resolve_kernel<S>, 1, 1024, stream, s, tile, n));
    }
  }
  return launch(emit_kernel<S>, static_cast<unsigned>(batch), kCompactThreads, stream, s, input.boxes.count,
                options.max_output, pad, indices, counts);
}

}  // namespace

size_t nms_workspace(int64_t batch, int64_t count, bool float64) {
  size_t bytes;
  if (float64) carve<Shape<double>>(nullptr, batch * count, &bytes);
  else carve<Shape<float>>(nullptr, batch * count, &bytes);
  return bytes;
}

size_t rotated_nms_workspace(int64_t count, bool float64) {
  size_t bytes;
  if (float64) carve<RotatedBox<double>>(nullptr, count, &bytes);
  else carve<RotatedBox<float>>(nullptr, count, &bytes);
  return bytes;
}

template <class T>
int nms(const NmsInput& input, T iou_threshold, int64_t* keep, int64_t* count, void* workspace, void* stream) {
  const PaddedOptions all{input.boxes.count, false, 0.0};
  return run<Shape<T>>(input, iou_threshold, all, false, keep, count, workspace, stream);
}

template <class T>
int rotated_nms(const NmsInput& input, T iou_threshold, int64_t* keep, int64_t* count, void* workspace, void* stream) {
  const PaddedOptions all{input.boxes.count, false, 0.0};
  return run<RotatedBox<T>>(input, iou_threshold, all, false, keep, count, workspace, stream);
}

template <class T>
int nms_padded(const NmsInput& input, T iou_threshold, const PaddedOptions& options, int64_t* indices, int64_t* counts,
               void* workspace, void* stream) {
  return run<Shape<T>>(input, iou_threshold, options, true, indices, counts, workspace, stream);
}

#define INSTANTIATE(T)                                                               \
  template int nms<T>(const NmsInput&, T, int64_t*, int64_t*, void*, void*);         \
  template int rotated_nms<T>(const NmsInput&, T, int64_t*, int64_t*, void*, void*); \
  template int nms_padded<T>(const NmsInput&, T, const PaddedOptions&, int64_t*, int64_t*, void*, void*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace boxops::cuda
