// Detections on the device, without sorting: a list of candidates per class (or per image, class-agnostic), in any
// order.
//   1. collect_kernel   all scores once; candidates are appended to their list
//   2. cut_kernel       with a limit per class: a block per class finds the k-th best by radix selection
//   3. suppress_kernel  a block per list: takes the best, strikes what overlaps it, and again, max_output times at
//   most
//   4. merge_kernel     a block per image: takes the best of all lists' heads, max_output times at most
// Candidates are compared by (score, index), which no two share, so that the order of a list leaves no trace.
//
// Floor: the scores once, at memory bandwidth; then about max_output rounds of a block, some 1 us each.
#include "common/copy.h"
#include "common/cuda_utils.cuh"
#include "common/warp.cuh"
#include "pipelines/detect.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

// What a candidate is compared by; smaller is better. `pair` -1 stands for none and is behind all.
struct Rank {
  uint64_t key;
  int32_t pair;
  __device__ bool before(const Rank& o) const {
    return key != o.key ? key < o.key : static_cast<uint32_t>(pair) < static_cast<uint32_t>(o.pair);
  }
};
constexpr uint64_t kNoKey = ~uint64_t(0);

__device__ Rank shuffle_xor(const Rank& own, int bits) {
  return {cuda::shuffle_xor(own.key, bits), cuda::shuffle_xor(own.pair, bits)};
}

struct Lists {
  int64_t per_image, capacity;
  uint32_t* counts;  // [B, per_image]
  int32_t* pairs;    // [B, per_image, capacity]
};

struct State {
  Lists found, cut, kept;  // `kept` is by falling score
  uint32_t* heads;         // [B, per_image] of `kept`: how many the merge has taken
  bool cuts;
  const Lists& candidates() const { return cuts ? cut : found; }
};

Lists take_lists(Workspace& w, int64_t batch, int64_t per_image, int64_t capacity) {
  return {per_image, capacity, w.take<uint32_t>(batch * per_image), w.take<int32_t>(batch * per_image * capacity)};
}

State carve(void* base, const DetectInput& in, const DetectOptions& o, size_t* bytes) {
  Workspace w(base);
  State s;
  s.cuts = o.per_class >= 0 && o.per_class < in.count;
  const bool by_class = !o.class_agnostic || s.cuts;
  s.found = take_lists(w, in.batch, by_class ? in.classes : 1, by_class ? in.count : in.count * in.classes);
  if (s.cuts)
    s.cut =
        take_lists(w, in.batch, o.class_agnostic ? 1 : in.classes, o.per_class * (o.class_agnostic ? in.classes : 1));
  const Lists& last = s.candidates();
  s.kept = take_lists(w, in.batch, last.per_image, min_of(last.capacity, o.max_output));
  s.heads = w.take<uint32_t>(in.batch * last.per_image);
  *bytes = w.used();
  return s;
}

// A thread clears one counter.
__global__ void clear_kernel(uint32_t* counts, int64_t n) {
  for (const int64_t i : grid_stride<kThreads>(n)) counts[i] = 0;
}

// A thread looks at one score at a time, neighbours at neighbours, and appends it to its list.
template <class T>
__global__ void __launch_bounds__(kThreads) collect_kernel(DetectInput in, DetectOptions o, Lists lists) {
  const int64_t pairs = in.count * in.classes;
  for (int64_t b = blockIdx.y; b < in.batch; b += gridDim.y)
    for (int64_t first = int64_t(blockIdx.x) * kThreads; first < pairs; first += int64_t(gridDim.x) * kThreads) {
      const bool inside = first + threadIdx.x < pairs;
      const int32_t pair = inside ? static_cast<int32_t>(first + threadIdx.x) : 0;
      const bool found =
          inside && score_exceeds({in.scores, in.score_dtype, 1, 0}, score_at(in, b, pair), 0, o.score_threshold) &&
          (!o.has_min_size || is_large(box_of<T>(in, b, pair), static_cast<T>(o.min_size)));
      if (lists.per_image > 1) {
        const int64_t list = b * lists.per_image + pair % in.classes;
        if (found) lists.pairs[list * lists.capacity + atomicAdd(&lists.counts[list], 1u)] = pair;
        continue;
      }
      // One list: a warp appends together.
      const unsigned votes = __ballot_sync(kFullMask, found), lane = threadIdx.x % 32;
      uint32_t at = 0;
      if (lane == 0 && votes) at = atomicAdd(&lists.counts[b], static_cast<uint32_t>(__popc(votes)));
      at = __shfl_sync(kFullMask, at, 0) + __popc(votes & ((1u << lane) - 1));
      if (found) lists.pairs[b * lists.capacity + at] = pair;
    }
}

// The k-th smallest, from 1, of the values that value(i, &v) gives for i < count where it says true; by all threads of
// a block, digit by digit of 8 bits. `k` becomes the place among the values equal to the result.
template <class Value>
__device__ uint64_t kth_smallest(uint32_t count, int bits, uint32_t* k, Value value) {
  __shared__ uint32_t sums[256], digit, below;
  static_assert(kThreads == 256, "a thread per digit");
  const uint32_t t = threadIdx.x;
  uint64_t prefix = 0;
  for (int shift = bits - 8; shift >= 0; shift -= 8) {
    sums[t] = 0;
    __syncthreads();
    for (uint32_t i = t; i < count; i += kThreads) {
      uint64_t v;
      if (value(i, &v) && (v >> shift) >> 8 == prefix) atomicAdd(&sums[v >> shift & 255], 1u);
    }
    __syncthreads();
    uint32_t sum = sums[t];
    const uint32_t own = sum;
    for (int step = 1; step < 256; step *= 2) {
      const uint32_t left = t >= static_cast<uint32_t>(step) ? sums[t - step] : 0;
      __syncthreads();
      sums[t] = sum += left;
      __syncthreads();
    }
    if (sum >= *k && sum - own < *k) digit = t, below = sum - own;
    __syncthreads();
    prefix = prefix << 8 | digit;
    *k -= below;
    __syncthreads();
  }
  return prefix;
}

// Block g moves the best of one class to its list, or its image's.
__global__ void __launch_bounds__(kThreads)
    cut_kernel(DetectInput in, Lists from, Lists to, uint32_t per_class, int score_bits) {
  for (int64_t g = blockIdx.x; g < in.batch * from.per_image; g += gridDim.x) {
    const int64_t b = g / from.per_image, target = to.per_image == 1 ? b : g;
    const uint32_t count = from.counts[g];
    const int32_t* pairs = from.pairs + g * from.capacity;
    Rank last{kNoKey, -1};  // the last that stays
    if (count > per_class && per_class > 0) {
      uint32_t k = per_class;
      last.key = kth_smallest(count, score_bits, &k, [&](uint32_t i, uint64_t* v) {
        *v = key_of(in, b, pairs[i]);
        return true;
      });
      last.pair = static_cast<int32_t>(kth_smallest(count, 32, &k, [&](uint32_t i, uint64_t* v) {
        *v = static_cast<uint32_t>(pairs[i]);
        return key_of(in, b, pairs[i]) == last.key;
      }));
    }
    for (uint32_t i = threadIdx.x; i < count && per_class > 0; i += kThreads)
      if (!last.before({key_of(in, b, pairs[i]), pairs[i]}))
        to.pairs[target * to.capacity + atomicAdd(&to.counts[target], 1u)] = pairs[i];
  }
}

// The best of all threads' ranks; `best` is shared memory that no thread may still be reading.
__device__ Rank best_of_block(Rank own, Rank* best) {
  own = warp_first(own);
  if (threadIdx.x % 32 == 0) best[threadIdx.x / 32] = own;
  __syncthreads();
  Rank result = best[0];
  for (int w = 1; w < kWarps; ++w)
    if (best[w].before(result)) result = best[w];
  return result;
}

// Short lists are kept in shared memory.
constexpr uint32_t kCached = 512;
template <class T>
struct Cache {
  Shape<T> shapes[kCached];
  uint64_t keys[kCached];
};

// Block g suppresses in one list. Each round all threads go through their candidates: they strike those
// that the last winner overlaps too much, and find their best among the rest.
template <class T>
__global__ void __launch_bounds__(kThreads) suppress_kernel(DetectInput in, Lists lists, Lists kept, T threshold) {
  __shared__ Cache<T> cache;
  __shared__ Rank best[kWarps];
  __shared__ Shape<T> winner_shape;
  for (int64_t g = blockIdx.x; g < in.batch * lists.per_image; g += gridDim.x) {
    const int64_t b = g / lists.per_image;
    const uint32_t count = lists.counts[g];
    int32_t* pairs = lists.pairs + g * lists.capacity;
    const auto shape = [&](int32_t pair) { return shape_of<Measure::kIoU>(box_of<T>(in, b, pair)); };
    const bool cached = count <= kCached;
    if (cached)  // a thread only ever reads what it wrote
      for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
        const Shape<T> loaded = shape(pairs[i]);
        cache.shapes[i] = loaded, cache.keys[i] = key_of(in, b, pairs[i]);
      }
    int64_t taken = 0;
    for (; taken < kept.capacity; ++taken) {
      Rank own{kNoKey, -1};
      uint32_t own_at = 0;
      for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
        if (pairs[i] < 0) continue;
        if (taken > 0 && iou_of(winner_shape, cached ? cache.shapes[i] : shape(pairs[i])) > threshold) {
          pairs[i] = -1;
          continue;
        }
        const Rank rank{cached ? cache.keys[i] : key_of(in, b, pairs[i]), pairs[i]};
        if (rank.before(own)) own = rank, own_at = i;
      }
      const Rank winner = best_of_block(own, best);
      if (winner.pair < 0) break;
      if (own.pair == winner.pair) {  // the one thread that holds it
        const Shape<T> loaded = shape(winner.pair);
        winner_shape = loaded;
        kept.pairs[g * kept.capacity + taken] = winner.pair;
        pairs[own_at] = -1;
      }
      __syncthreads();
    }
    if (threadIdx.x == 0) kept.counts[g] = static_cast<uint32_t>(taken);
    __syncthreads();
  }
}

// Block b merges the lists of image b, each of which belongs to one thread, and writes the detections.
__global__ void __launch_bounds__(kThreads) merge_kernel(DetectInput in, DetectOutput out, State s,
                                                         int64_t max_detections, int64_t box_size, int64_t score_size) {
  __shared__ Rank best[2][kWarps];
  const int64_t b = blockIdx.x, first = b * s.kept.per_image;
  const auto head = [&](int64_t list) -> Rank {
    const uint32_t at = s.heads[first + list];
    if (at >= s.kept.counts[first + list]) return {kNoKey, -1};
    const int32_t pair = s.kept.pairs[(first + list) * s.kept.capacity + at];
    return {key_of(in, b, pair), pair};
  };
  int64_t own_at = 0;
  Rank own;
  const auto find = [&] {
    own = {kNoKey, -1};
    for (int64_t list = threadIdx.x; list < s.kept.per_image; list += kThreads) {
      const Rank rank = head(list);
      if (rank.before(own)) own = rank, own_at = list;
    }
  };
  find();
  int64_t taken = 0;
  for (; taken < max_detections; ++taken) {
    const Rank winner = best_of_block(own, best[taken % 2]);
    if (winner.pair < 0) break;
    if (own.pair == winner.pair) {
      out.labels[b * max_detections + taken] = winner.pair;  // for now
      ++s.heads[first + own_at];
      find();
    }
  }
  __syncthreads();
  for (int64_t d = threadIdx.x; d < max_detections; d += kThreads) {
    const int64_t at = b * max_detections + d;
    const bool real = d < taken;
    const int32_t pair = real ? static_cast<int32_t>(out.labels[at]) : 0;
    const uint64_t zero = 0;
    for (int k = 0; k < 4; ++k) {
      if (real) copy_number(box_size, in.boxes, box_at(in, b, pair) + k * in.box_strides[3], out.boxes, 4 * at + k);
      else copy_number(box_size, &zero, 0, out.boxes, 4 * at + k);
    }
    if (real) copy_number(score_size, in.scores, score_at(in, b, pair), out.scores, at);
    else copy_number(score_size, &zero, 0, out.scores, at);
    out.labels[at] = real ? pair % in.classes : -1;
  }
  if (threadIdx.x == 0) out.counts[b] = taken;
}

int clear(const Lists& lists, int64_t batch, void* stream) {
  const int64_t n = batch * lists.per_image;
  return launch(clear_kernel, grid_x(blocks_of(n, kThreads)), kThreads, stream, lists.counts, n);
}

}  // namespace

size_t detect_workspace(const DetectInput& input, const DetectOptions& options) {
  size_t bytes;
  carve(nullptr, input, options, &bytes);
  return bytes;
}

int detect(const DetectInput& in, const DetectOptions& o, const DetectOutput& out, void* workspace, void* stream) {
  return with_compute_type(in.box_dtype, [&](auto t) -> int {
    using T = decltype(t);
    size_t bytes;
    const State s = carve(workspace, in, o, &bytes);
    const int64_t pairs = in.count * in.classes, lists = in.batch * s.candidates().per_image;
    BOXOPS_TRY(clear(s.found, in.batch, stream));
    BOXOPS_TRY(launch(collect_kernel<T>, dim3(grid_x(blocks_of(pairs, kThreads)), grid_yz(in.batch)), kThreads, stream,
                      in, o, s.found));
    if (s.cuts) {
      BOXOPS_TRY(clear(s.cut, in.batch, stream));
      BOXOPS_TRY(launch(cut_kernel, grid_x(in.batch * s.found.per_image), kThreads, stream, in, s.found, s.cut,
                        static_cast<uint32_t>(o.per_class), score_key_bits(in.score_dtype)));
    }
    BOXOPS_TRY(launch(suppress_kernel<T>, grid_x(lists), kThreads, stream, in, s.candidates(), s.kept,
                      static_cast<T>(o.iou_threshold)));
    BOXOPS_TRY(launch(clear_kernel, grid_x(blocks_of(lists, kThreads)), kThreads, stream, s.heads, lists));
    return launch(merge_kernel, grid_x(in.batch), kThreads, stream, in, out, s, o.max_output, size_of(in.box_dtype),
                  size_of(in.score_dtype));
  });
}

}  // namespace boxops::cuda
