// Detections on the device, sorting no more than what goes out: a list of candidates per class (or per image,
// class-agnostic), in any order.
//   1. collect_kernel   all scores once; candidates are appended to their list
//   2. cut_kernel       class-agnostic with a limit per class: a block per class moves its best to the image's list
//   3. suppress_kernel  a block per list: its candidates, the best 256 at a time, are settled as NMS settles its boxes;
//                       what stays is appended to the image's list
//   4. merge_kernel     a block per image: the best of that list
// Candidates are compared by (score, index), which no two share, so that the order of a list leaves no trace.
//
// Floor: the scores once, at memory bandwidth; then some 5 us of a block for each 256 candidates of a class that are
// needed, and for each 256 detections.
#include "common/best_ranks.cuh"
#include "common/copy.h"
#include "nms/overlap.cuh"
#include "nms/settle.cuh"
#include "pipelines/detect.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 512, kMergeThreads = 1024;

struct Lists {
  int64_t per_image, capacity;
  uint32_t* counts;  // [B, per_image]
  int32_t* pairs;    // [B, per_image, capacity]
};

struct State {
  Lists found, cut, merged;
  bool cuts;              // into `cut`
  uint64_t* merged_keys;  // [B, merged.capacity]
  int64_t per_list;       // no list keeps more
  int32_t* kept;          // [B, lists per image, per_list], of each list by falling score
  uint32_t* counts;       // of all lists
  int64_t lists;
  __host__ __device__ const Lists& candidates() const { return cuts ? cut : found; }
};

State carve(void* base, const DetectInput& in, const DetectOptions& o, size_t* bytes) {
  Workspace w(base);
  State s;
  const bool limited = o.per_class >= 0 && o.per_class < in.count, by_class = !o.class_agnostic || limited;
  s.cuts = limited && o.class_agnostic;
  s.lists = in.batch * ((by_class ? in.classes : 1) + (s.cuts ? 1 : 0) + 1);
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
  s.merged_keys = w.take<uint64_t>(in.batch * s.merged.capacity);
  s.kept = w.take<int32_t>(in.batch * last.per_image * s.per_list);
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

// Some of a list's candidates by falling score, and which of them stay.
constexpr int kWords = kAtOnce / 64, kParts = kThreads / kAtOnce;
template <class T>
struct Round {
  Best best;
  Upright<T> boxes[kAtOnce];                       // up to a multiple of 64, the last again and again
  unsigned overlapped[kAtOnce][kAtOnce / 32 + 1];  // bits of the boxes before it; one word more, for the banks
  unsigned out[kAtOnce / 32];                      // bits of those that a box kept in an earlier round overlaps
  Word kept[kWords];
  Upright<T> columns[kParts][64];  // kept boxes
};

template <class T>
__device__ Upright<T> upright_of(const DetectInput& in, int64_t b, int32_t pair) {
  return {shape_of<Measure::kIoU>(box_of<T>(in, b, pair))};
}

// A copy without the padding, which nothing has written.
template <class T>
__device__ Upright<T> copy_of(const Upright<T>& box) {
  return {static_cast<const Shape<T>&>(box)};
}

// Finds `out`, of n boxes: kParts threads for each.
template <class T>
__device__ void compare_with_kept(const DetectInput& in, int64_t b, const int32_t* kept, int64_t taken, int n,
                                  const Threshold<T>& threshold, Round<T>& round) {
  const int t = static_cast<int>(threadIdx.x), i = t % kAtOnce, part = t / kAtOnce;
  if (t < static_cast<int>(kAtOnce) / 32) round.out[t] = 0;
  for (int64_t first = 0; first < taken; first += 64 * kParts) {
    __syncthreads();
    if (t < 64 * kParts) {
      const auto column = upright_of<T>(in, b, kept[min_of(first + t, taken - 1)]);
      round.columns[t / 64][t % 64] = column;
    }
    __syncthreads();
    const Upright<T> box = copy_of(round.boxes[min_of(i, n - 1)]);
    const bool out = i < n && overlapping<true>(round.columns[part], box, threshold) != 0;
    const unsigned votes = __ballot_sync(kFullMask, out);
    if (t % 32 == 0 && votes != 0) atomicOr(&round.out[i / 32], votes);
  }
}

// Finds `overlapped`, of 32 * rows boxes: a warp takes 32 of them and 32 of those before them at a time.
template <class T>
__device__ void compare(int rows, const Threshold<T>& threshold, Round<T>& round) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  int tile = 0;
  for (int row = 0; row < rows; ++row)
    for (int word = 0; word <= row; ++word, ++tile) {
      if (tile % (kThreads / 32) != warp) continue;
      const int i = row * 32 + lane;
      const Upright<T> box = copy_of(round.boxes[i]);
      const unsigned bits = overlapping_of_32<false>(round.boxes + word * 32, box, threshold);
      round.overlapped[i][word] = bits & static_cast<unsigned>(lowest(i - word * 32));
    }
}

// Finds `kept`, of n boxes, by the first warp; stops behind the word with the last that is needed.
template <class T>
__device__ void settle(int n, int64_t needed, Round<T>& round) {
  const int lane = static_cast<int>(threadIdx.x);
  for (int word = 0; word < kWords; ++word) {
    Word in = 0;
    if (word * 64 < n && needed > 0) {
      Word overlapped[2];
      bool out[2];
      for (int half = 0; half < 2; ++half) {
        const int i = word * 64 + lane + 32 * half;
        const unsigned* row = round.overlapped[i];
        Word met = 0;
        for (int w = 0; w < word; ++w) met |= (Word(row[2 * w + 1]) << 32 | row[2 * w]) & round.kept[w];
        overlapped[half] = Word(half == 0 ? 0 : row[2 * word + 1]) << 32 | row[2 * word];
        out[half] = i >= n || met != 0 || (round.out[i / 32] >> lane & 1) != 0;
      }
      const unsigned low = __ballot_sync(kFullMask, out[0]), high = __ballot_sync(kFullMask, out[1]);
      in = settle(overlapped, Word(high) << 32 | low);
    }
    if (lane == 0) round.kept[word] = in;
    __syncwarp();
    needed -= __popcll(in);
  }
}

// Block g suppresses in one list, of which the `max_candidates` best are candidates. Where few of many stay, a pass
// over the list strikes what these overlap, so that there are no more rounds than detections.
constexpr int kFew = 32;
template <class T>
__global__ void __launch_bounds__(kThreads)
    suppress_kernel(DetectInput in, State s, uint32_t max_candidates, int64_t limit, Threshold<T> threshold) {
  __shared__ Round<T> round;
  __shared__ uint32_t first;
  const Lists& lists = s.candidates();
  const int t = static_cast<int>(threadIdx.x);
  for (int64_t g = blockIdx.x; g < in.batch * lists.per_image; g += gridDim.x) {
    const int64_t b = g / lists.per_image;
    const uint32_t count = max_candidates > 0 ? lists.counts[g] : 0;
    int32_t *pairs = lists.pairs + g * lists.capacity, *kept = s.kept + g * s.per_list;
    const auto rank_at = [&](uint32_t i) {
      return pairs[i] < 0 ? Rank::none() : Rank{key_of(in, b, pairs[i]), pairs[i]};
    };
    const Rank last = count > max_candidates ? last_of_best(count, max_candidates, rank_at) : Rank::none();
    Rank done = Rank::none();  // the last of the rounds before
    int64_t taken = 0;
    const auto open_at = [&](uint32_t i) {
      const Rank rank = rank_at(i);
      return last.before(rank) || (taken > 0 && !done.before(rank)) ? Rank::none() : rank;
    };
    for (bool more = count > 0; more && taken < limit;) {
      const int n = static_cast<int>(take_best(count, kAtOnce, open_at, round.best));
      if (n == 0) break;
      const int words = static_cast<int>(blocks_of(n, 64));
      for (int i = t; i < 64 * words; i += kThreads) {
        const auto box = upright_of<T>(in, b, static_cast<int32_t>(round.best.ranks[min_of(i, n - 1)].pair));
        round.boxes[i] = box;
      }
      compare_with_kept(in, b, kept, taken, n, threshold, round);
      __syncthreads();
      compare(2 * words, threshold, round);
      __syncthreads();
      if (t < 32) settle(n, limit - taken, round);
      __syncthreads();

      int now = 0;
      for (int word = 0; word < words; ++word) {
        const int bit = t - 64 * word, at = now + __popcll(round.kept[word] & lowest(bit));
        now += __popcll(round.kept[word]);
        if (bit < 0 || bit >= 64 || !(round.kept[word] >> bit & 1)) continue;
        if (taken + at < limit) kept[taken + at] = static_cast<int32_t>(round.best.ranks[t].pair);
        if (at < kFew) round.columns[0][at] = copy_of(round.boxes[t]);
      }
      done = round.best.ranks[n - 1];
      taken += now;
      more = static_cast<uint32_t>(n) == kAtOnce && count > kAtOnce;
      if (!more || taken >= limit || now == 0 || now > kFew) continue;
      __syncthreads();
      if (t >= now && t < 64) round.columns[0][t] = copy_of(round.columns[0][0]);
      __syncthreads();
      for (uint32_t i = t; i < count; i += kThreads)
        if (open_at(i).pair >= 0 && overlapping<true>(round.columns[0], upright_of<T>(in, b, pairs[i]), threshold) != 0)
          pairs[i] = -1;
    }
    taken = min_of(taken, limit);
    if (t == 0) first = atomicAdd(&s.merged.counts[b], static_cast<uint32_t>(taken));
    __syncthreads();
    for (int64_t i = t; i < taken; i += kThreads) {
      const int64_t to = b * s.merged.capacity + first + i;
      s.merged.pairs[to] = kept[i], s.merged_keys[to] = key_of(in, b, kept[i]);
    }
    __syncthreads();
  }
}

// Block b writes the detections of image b.
__global__ void __launch_bounds__(kMergeThreads)
    merge_kernel(DetectInput in, DetectOutput out, State s, int64_t max_output, int64_t box_size, int64_t score_size) {
  __shared__ Best best;
  const int64_t b = blockIdx.x, first = b * max_output;
  const uint32_t count = s.merged.counts[b];
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
    BOXOPS_TRY(launch(clear_kernel, grid_x(blocks_of(s.lists, kThreads)), kThreads, stream, s.counts, s.lists));
    BOXOPS_TRY(launch(collect_kernel<T>, dim3(grid_x(blocks_of(pairs, kThreads)), grid_yz(in.batch)), kThreads, stream,
                      in, o, s.found));
    if (s.cuts)
      BOXOPS_TRY(launch(cut_kernel, grid_x(in.batch * in.classes), kThreads, stream, in, s.found, s.cut, per_class));
    BOXOPS_TRY(launch(suppress_kernel<T>, grid_x(in.batch * s.candidates().per_image), kThreads, stream, in, s,
                      o.class_agnostic ? static_cast<uint32_t>(all) : per_class, o.max_output,
                      Threshold<T>(static_cast<T>(o.iou_threshold))));
    return launch(merge_kernel, grid_x(in.batch), kMergeThreads, stream, in, out, s, o.max_output,
                  size_of(in.box_dtype), size_of(in.score_dtype));
  });
}

}  // namespace boxops::cuda
