// Detections on the device, sorting no more than what goes out: a list of candidates per class (or per image,
// class-agnostic), in any order.
//   1. collect_kernel   all scores once; candidates are appended to their list
//   2. cut_kernel       class-agnostic with a limit per class: a block per class moves its best to the image's list
//   3. suppress_kernel  a block per list: its 128 best candidates (of the one list of an image, 256) are settled as NMS
//                       settles its boxes (nms/few.cuh); what stays is appended to the image's list
//   4. resume_kernel    the same with the rest, 256 at a time, of lists from which a detection could still come
//   5. merge_kernel     a block per image: the best of that list
// Candidates are compared by (score, index), which no two share, so that the order of a list leaves no trace.
//
// Floor: the scores once, at memory bandwidth; then some 5 us of a block for each 256 candidates of a class that are
// needed, and for each 256 detections.
#include "common/copy.h"
#include "nms/few.cuh"
#include "pipelines/detect.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 512, kMergeThreads = 1024;
constexpr uint32_t kAtFirst = 128;  // candidates of a class

struct Lists {
  int64_t per_image, capacity;
  uint32_t* counts;  // [B, per_image]
  int32_t* pairs;    // [B, per_image, capacity]
};

// A list of candidates, and how far a block has come in it.
struct List {
  int64_t b;  // the image
  uint32_t count;
  int32_t *pairs, *kept;
  int64_t taken;  // how many are kept
  Rank done;      // the last candidate of the rounds before
  bool more;      // whether candidates are left

  __device__ Rank rank_at(const DetectInput& in, uint32_t i) const {
    return pairs[i] < 0 ? Rank::none() : Rank{key_of(in, b, pairs[i]), pairs[i]};
  }
};

struct State {
  Lists found, cut, merged;
  bool cuts;              // into `cut`
  uint64_t* merged_keys;  // [B, merged.capacity]
  int64_t per_list;       // no list keeps more
  int32_t* kept;          // [B, lists per image, per_list], of each list by falling score
  int32_t* taken;         // [B, lists per image], what suppress_kernel leaves: how many are kept
  Rank* done;             // and the last candidate of those; none: no more are left
  uint32_t* later;        // [B], how many resume_kernel appends to `merged`
  uint32_t* counts;       // of all lists
  int64_t lists;
  __host__ __device__ const Lists& candidates() const { return cuts ? cut : found; }
  __device__ List list(int64_t g, int64_t taken, const Rank& done) const {
    const Lists& from = candidates();
    int32_t* const pairs = from.pairs + g * from.capacity;
    return {g / from.per_image, from.counts[g], pairs, kept + g * per_list, taken, done, false};
  }
};

State carve(void* base, const DetectInput& in, const DetectOptions& o, size_t* bytes) {
  Workspace w(base);
  State s;
  const bool limited = o.per_class >= 0 && o.per_class < in.count, by_class = !o.class_agnostic || limited;
  s.cuts = limited && o.class_agnostic;
  s.lists = in.batch * ((by_class ? in.classes : 1) + (s.cuts ? 1 : 0) + 2);
  s.counts = w.take<uint32_t>(s.lists);
  uint32_t* counts = s.counts;
  const auto take = [&](int64_t per_image, int64_t capacity) {
    const Lists lists{per_image, capacity, counts, w.take<int32_t>(in.batch * per_image * capacity)};
    counts += in.batch * per_image;
    return lists;
  };
  s.found = by_class ? take(in.classes, in.count) : take(1, in.count * in.classes);
  s.cut = s.cuts ? take(1, o.per_class * in.classes) : Lists{};
  const Lists& last = s.candidates();
  s.per_list = min_of(last.capacity, o.max_output);
  s.merged = take(1, last.per_image * s.per_list);
  s.later = counts;
  s.merged_keys = w.take<uint64_t>(in.batch * s.merged.capacity);
  s.kept = w.take<int32_t>(in.batch * last.per_image * s.per_list);
  s.taken = w.take<int32_t>(in.batch * last.per_image);
  s.done = w.take<Rank>(in.batch * last.per_image);
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
        const int64_t list = b * lists.per_image + static_cast<uint32_t>(pair) % static_cast<uint32_t>(in.classes);
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

// Block g moves the best of one class to its image's list.
__global__ void __launch_bounds__(kThreads) cut_kernel(DetectInput in, Lists from, Lists to, uint32_t per_class) {
  for (int64_t g = blockIdx.x; g < in.batch * from.per_image && per_class > 0; g += gridDim.x) {
    const int64_t b = g / from.per_image;
    const uint32_t count = from.counts[g];
    const int32_t* pairs = from.pairs + g * from.capacity;
    const auto rank_at = [&](uint32_t i) { return Rank{key_of(in, b, pairs[i]), pairs[i]}; };
    const Rank last = count > per_class ? last_of_best(count, per_class, rank_at) : Rank::none();
    for (uint32_t i = threadIdx.x; i < count; i += kThreads)
      if (!last.before(rank_at(i))) to.pairs[b * to.capacity + atomicAdd(&to.counts[b], 1u)] = pairs[i];
  }
}

// Of a list, the candidates by falling score that a round takes, and kept boxes that they are compared with.
constexpr int kParts = kThreads / kFew;
template <class T>
struct Round : Few<T> {
  Upright<T> columns[kParts][64];
};

template <class T>
__device__ Upright<T> upright_of(const DetectInput& in, int64_t b, int64_t pair) {
  return {shape_of<Measure::kIoU>(box_of<T>(in, b, static_cast<int32_t>(pair)))};
}

// Finds `out`, of n boxes: kParts threads for each.
template <class T>
__device__ void compare_with_kept(const DetectInput& in, const List& list, int n, const Threshold<T>& threshold,
                                  Round<T>& round) {
  const int t = static_cast<int>(threadIdx.x), i = t % kFew, part = t / kFew;
  for (int64_t first = 0; first < list.taken; first += 64 * kParts) {
    __syncthreads();
    if (t < 64 * kParts) {
      const auto column = upright_of<T>(in, list.b, list.kept[min_of(first + t, list.taken - 1)]);
      round.columns[t / 64][t % 64] = column;
    }
    __syncthreads();
    const Upright<T> box = copy_of(round.boxes[min_of(i, n - 1)]);
    const bool out = i < n && overlapping<true>(round.columns[part], box, threshold) != 0;
    const unsigned votes = __ballot_sync(kFullMask, out);
    if (t % 32 == 0 && votes != 0) atomicOr(&round.out[i / 32], votes);
  }
}

// A round: the `wanted` best that open_at gives. Returns how many stay; the first kStriking of them are in `columns`.
constexpr int kStriking = 32;
template <class T, class OpenAt>
__device__ int take_round(const DetectInput& in, uint32_t wanted, int64_t limit, const Threshold<T>& threshold,
                          OpenAt open_at, List& list, Round<T>& round) {
  const int t = static_cast<int>(threadIdx.x), n = static_cast<int>(take_best(list.count, wanted, open_at, round.best));
  list.more = n == static_cast<int>(wanted) && wanted < list.count;
  if (n == 0) return 0;
  load_boxes(n, [&](int64_t pair) { return upright_of<T>(in, list.b, pair); }, round);
  compare_with_kept(in, list, n, threshold, round);
  __syncthreads();
  compare(n, threshold, round);
  __syncthreads();
  settle(n, limit - list.taken, round);
  __syncthreads();
  const Settled own = settled(round);
  if (own.kept) {
    const int64_t at = list.taken + own.before;
    if (at < limit) list.kept[at] = static_cast<int32_t>(round.best.ranks[t].pair);
    if (own.before < kStriking) round.columns[0][own.before] = copy_of(round.boxes[t]);
  }
  list.done = round.best.ranks[n - 1];
  list.taken = min_of(list.taken + own.all, limit);
  list.more = list.more && list.taken < limit;
  return own.all;
}

// Strikes the candidates that open_at gives and one of the `count` boxes in `columns` overlaps too much.
template <class T, class OpenAt>
__device__ void strike(const DetectInput& in, int count, const Threshold<T>& threshold, OpenAt open_at,
                       const List& list, Round<T>& round) {
  const int t = static_cast<int>(threadIdx.x);
  __syncthreads();
  if (t >= count && t < 64) round.columns[0][t] = copy_of(round.columns[0][0]);
  __syncthreads();
  for (uint32_t i = t; i < list.count; i += kThreads)
    if (open_at(i).pair >= 0 &&
        overlapping<true>(round.columns[0], upright_of<T>(in, list.b, list.pairs[i]), threshold) != 0)
      list.pairs[i] = -1;
}

// Whether `limit` of what all lists of an image kept in the first launch come before `rank`.
__device__ bool enough_before(const Rank& rank, int64_t b, int64_t limit, const State& s) {
  const int64_t count = s.merged.counts[b], first = b * s.merged.capacity;
  int64_t before = 0;
  for (int64_t at = threadIdx.x; at - threadIdx.x < count && before < limit; at += kThreads)
    before +=
        __syncthreads_count(at < count && Rank{s.merged_keys[first + at], s.merged.pairs[first + at]}.before(rank));
  return before >= limit;
}

// Appends what a list keeps from `from` on to what its image does, behind `offset`.
__device__ void append_kept(const DetectInput& in, const List& list, int64_t from, uint32_t offset, uint32_t* count,
                            const State& s) {
  __shared__ uint32_t first;
  if (threadIdx.x == 0) first = atomicAdd(count, static_cast<uint32_t>(list.taken - from));
  __syncthreads();
  for (int64_t i = from + threadIdx.x; i < list.taken; i += kThreads) {
    const int64_t to = list.b * s.merged.capacity + offset + first + i - from;
    s.merged.pairs[to] = list.kept[i], s.merged_keys[to] = key_of(in, list.b, list.kept[i]);
  }
  __syncthreads();
}

// Block g takes the `wanted` best candidates of one list, of which the `max_candidates` best count.
template <class T>
__global__ void __launch_bounds__(kThreads)
    suppress_kernel(DetectInput in, State s, uint32_t wanted, uint32_t max_candidates, int64_t limit,
                    Threshold<T> threshold) {
  __shared__ Round<T> round;
  const Lists& lists = s.candidates();
  for (int64_t g = blockIdx.x; g < in.batch * lists.per_image; g += gridDim.x) {
    List list = s.list(g, 0, Rank::none());
    if (list.count > 0 && limit > 0 && wanted > 0)
      take_round(in, wanted, limit, threshold, [&](uint32_t i) { return list.rank_at(in, i); }, list, round);
    if (threadIdx.x == 0) {
      s.taken[g] = static_cast<int32_t>(list.taken);
      s.done[g] = list.more && wanted < max_candidates ? list.done : Rank::none();
    }
    append_kept(in, list, 0, 0, &s.merged.counts[list.b], s);
  }
}

// Block g goes on with one list, unless what it would find comes too late. Where few of many stay, a pass over the list
// strikes what these overlap, so that there are no more rounds than detections.
template <class T>
__global__ void __launch_bounds__(kThreads)
    resume_kernel(DetectInput in, State s, uint32_t max_candidates, int64_t limit, Threshold<T> threshold) {
  __shared__ Round<T> round;
  const Lists& lists = s.candidates();
  for (int64_t g = blockIdx.x; g < in.batch * lists.per_image; g += gridDim.x) {
    List list = s.list(g, s.taken[g], s.done[g]);
    if (list.done.pair < 0 || enough_before(list.done, list.b, limit, s)) continue;
    const int64_t from = list.taken;
    const auto rank_at = [&](uint32_t i) { return list.rank_at(in, i); };
    const Rank last = list.count > max_candidates ? last_of_best(list.count, max_candidates, rank_at) : Rank::none();
    const auto open_at = [&](uint32_t i) {
      const Rank rank = rank_at(i);
      return last.before(rank) || !list.done.before(rank) ? Rank::none() : rank;
    };
    for (list.more = true; list.more;) {
      const int stay = take_round(in, kAtOnce, limit, threshold, open_at, list, round);
      if (list.more && stay > 0 && stay <= kStriking) strike(in, stay, threshold, open_at, list, round);
    }
    append_kept(in, list, from, s.merged.counts[list.b], &s.later[list.b], s);
  }
}

// Block b writes the detections of image b.
__global__ void __launch_bounds__(kMergeThreads)
    merge_kernel(DetectInput in, DetectOutput out, State s, int64_t max_output, int64_t box_size, int64_t score_size) {
  __shared__ Best best;
  const int64_t b = blockIdx.x, first = b * max_output;
  const uint32_t count = s.merged.counts[b] + s.later[b];
  const int32_t* pairs = s.merged.pairs + b * s.merged.capacity;
  const uint64_t* keys = s.merged_keys + b * s.merged.capacity;
  Rank done = Rank::none();
  int64_t taken = 0;
  for (bool more = count > 0; more && taken < max_output;) {
    const auto needed = static_cast<uint32_t>(min_of<int64_t>(kAtOnce, max_output - taken));
    const uint32_t n = take_best(
        count, needed,
        [&](uint32_t i) {
          const Rank rank{keys[i], pairs[i]};
          return taken > 0 && !done.before(rank) ? Rank::none() : rank;
        },
        best);
    for (uint32_t i = threadIdx.x; i < n; i += kMergeThreads) {
      const int64_t at = first + taken + i;
      const auto pair = static_cast<int32_t>(best.ranks[i].pair);
      for (int k = 0; k < 4; ++k)
        copy_number(box_size, in.boxes, box_at(in, b, pair) + k * in.box_strides[3], out.boxes, 4 * at + k);
      copy_number(score_size, in.scores, score_at(in, b, pair), out.scores, at);
      out.labels[at] = pair % in.classes;
    }
    more = n == needed;
    if (n > 0) done = best.ranks[n - 1];
    taken += n;
  }
  for (int64_t at = first + taken + threadIdx.x; at < first + max_output; at += kMergeThreads) {
    const uint64_t zero = 0;
    for (int k = 0; k < 4; ++k) copy_number(box_size, &zero, 0, out.boxes, 4 * at + k);
    copy_number(score_size, &zero, 0, out.scores, at);
    out.labels[at] = -1;
  }
  if (threadIdx.x == 0) out.counts[b] = taken;
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
    const int64_t pairs = in.count * in.classes, all = std::numeric_limits<int32_t>::max();
    const auto per_class = static_cast<uint32_t>(o.per_class < 0 ? all : min_of(o.per_class, all));
    const uint32_t most = o.class_agnostic ? static_cast<uint32_t>(all) : per_class;  // candidates of a list
    const Lists& lists = s.candidates();
    const uint32_t wanted = min_of(most, lists.per_image > 1 ? kAtFirst : kAtOnce);
    const Threshold<T> threshold(static_cast<T>(o.iou_threshold));
    BOXOPS_TRY(launch(clear_kernel, grid_x(blocks_of(s.lists, kThreads)), kThreads, stream, s.counts, s.lists));
    BOXOPS_TRY(launch(collect_kernel<T>, dim3(grid_x(blocks_of(pairs, kThreads)), grid_yz(in.batch)), kThreads, stream,
                      in, o, s.found));
    if (s.cuts)
      BOXOPS_TRY(launch(cut_kernel, grid_x(in.batch * in.classes), kThreads, stream, in, s.found, s.cut, per_class));
    BOXOPS_TRY(launch(suppress_kernel<T>, grid_x(in.batch * lists.per_image), kThreads, stream, in, s, wanted, most,
                      o.max_output, threshold));
    if (min_of<int64_t>(most, lists.capacity) > wanted)
      BOXOPS_TRY(launch(resume_kernel<T>, grid_x(in.batch * lists.per_image), kThreads, stream, in, s, most,
                        o.max_output, threshold));
    return launch(merge_kernel, grid_x(in.batch), kMergeThreads, stream, in, out, s, o.max_output,
                  size_of(in.box_dtype), size_of(in.score_dtype));
  });
}

}  // namespace boxops::cuda
