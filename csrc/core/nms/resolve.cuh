// The second half of a round of greedy NMS on the device (greedy.cuh): which boxes are kept.
//
// Block g resolves the segments that begin in group g: those inside it all at once, and then, group by group, the one
// that goes on behind it. While one warp settles a group, the others prepare the next:
//
//   words of the mask of the next group's boxes
//   | 0 | 1 | 2 | ...     group - 1 | group | group + 1 |
//   | 16 warps: who is out by these | a warp brings these to the one that settles, which waits for `group` only
#pragma once

#include "common/compact.cuh"
#include "nms/greedy.cuh"

namespace boxops::cuda {
namespace {

// Where the block that resolves the only segment there is lists its kept boxes; without indices they are marked.
struct Listing {
  int64_t* indices = nullptr;
  int64_t* count = nullptr;
  bool pad = false;  // with -1, up to the limit
};

// The segments that begin in one group of 64 places, as far as the round goes; see the figure.
struct Walk {
  int64_t first;     // place
  Word members;      // of the first group
  Word leading;      // of these, the boxes of the last segment, which may go on behind the group
  Span segment;      // that segment
  int64_t end;       // where it or the round ends, if it goes on; else where the group ends
  int groups;        // to go through
  const Word* mask;  // row of the first place

  template <class S>
  __device__ Walk(const Greedy<S>& s, const Round& round, int64_t first)
      : first(first), groups(1), mask(s.mask + first - round.first) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const auto begins_here = [&](int64_t i) {
      const Span own = s.segment[min_of(i, s.n - 1)];
      return i < s.n && round.holds(own, i) && own.start + round.from >= this->first;
    };
    const bool begin[] = {begins_here(first + lane), begins_here(first + lane + 32)};
    segment = s.segment[round.from > 0 ? first : min_of(first + 63, s.n - 1)];
    members = ballot_of_64(begin[0], begin[1]);
    leading = members & ~lowest(segment.start + round.from - first);
    end = min_of(segment.end, segment.start + round.to);
    if (members >> 63 != 0 && end > first + 64) groups = static_cast<int>(blocks_of(end - first, 64));
    else end = min_of(first + 64, s.n);
  }
  __device__ Word own(Word kept, int group) const { return group == 0 ? kept & leading : kept; }
  __device__ Word held(int group) const { return group == 0 ? members : lowest(end - first - group * 64); }
  // A row of the mask that is written, even where nothing is held.
  __device__ int row(int group, int bit) const { return min_of(group * 64 + bit, static_cast<int>(end - first) - 1); }
};

// A group's boxes that are out before it is settled.
struct Out {
  unsigned halves[2];
  __device__ void add(bool low, bool high, Word others = 0) {
    const unsigned bits[] = {__ballot_sync(kFullMask, low) | static_cast<unsigned>(others),
                             __ballot_sync(kFullMask, high) | static_cast<unsigned>(others >> 32)};
    if (threadIdx.x % 32 == 0 && (bits[0] | bits[1]) != 0) atomicOr(&halves[0], bits[0]), atomicOr(&halves[1], bits[1]);
  }
  __device__ Word with(bool low, bool high) const {
    const unsigned bits = __ballot_sync(kFullMask, low);
    return Word(__ballot_sync(kFullMask, high) | halves[1]) << 32 | bits | halves[0];
  }
};

// What one warp fetches of a lane's two boxes of a group, `lane` and `lane + 32`, for the warp that settles it.
struct alignas(16) Overlapped {
  Word here, before;  // in the group, in the group before
};
struct Pair {
  Overlapped low, high;
  int low_alive, high_alive;
  template <class S>
  __device__ void load(const Greedy<S>& s, const Walk& walk, int group) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int i = walk.row(group, lane), j = walk.row(group, lane + 32);
    const Word *here = walk.mask + group * s.rows, *before = walk.mask + max_of(group - 1, 0) * s.rows;
    const int* alive = s.alive + walk.first;
    low = {here[i], before[i]}, high = {here[j], before[j]};
    low_alive = alive[i], high_alive = alive[j];
  }
  __device__ void bring(Overlapped* pairs, Out& out, Word held) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    pairs[lane] = low, pairs[lane + 32] = high;
    out.add(low_alive == 0, high_alive == 0, ~held);
  }
};

// What a warp that strikes holds of such two boxes: every so many-th word of their masks, but for the last two.
constexpr int kStrikers = 16, kStruckWords = 4;
struct Ahead {
  Word low[kStruckWords], high[kStruckWords];

  // All side by side, so that they do not wait for each other.
  template <class F>
  __device__ static void for_each(int words, F f) {
    if (words <= 2) return f(0), f(1);
    f(0), f(1), f(2), f(3);
  }
  __device__ void load(const Word* mask, int64_t stride, const Walk& walk, int group, int words) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const Word *i = mask + walk.row(group, lane), *j = mask + walk.row(group, lane + 32);
    for_each(words, [&](int k) {
      const int64_t at = stride * min_of(k, words - 1);
      low[k] = i[at], high[k] = j[at];
    });
  }
  __device__ void strike(const Word* kept, int words, Out& out) const {
    Word met_low = 0, met_high = 0;
    for_each(words, [&](int k) {
      const Word by = kept[kStrikers * min_of(k, words - 1)];
      met_low |= low[k] & by, met_high |= high[k] & by;
    });
    out.add(met_low != 0, met_high != 0);
  }
};
static_assert(kStrikers * kStruckWords >= kMaxWords - 2, "a box's words fit");

// Writes what a block kept: marks, or the list; and for later rounds the boxes, if any are left. nth: in the segment.
template <class S>
__device__ void write_kept(const Greedy<S>& s, const Walk& walk, const Listing& listing, int64_t limit,
                           const Word* kept, const int64_t* before, int groups) {
  const int t = static_cast<int>(threadIdx.x);
  const bool unfinished = walk.groups > 1 && walk.segment.end > walk.end;
#pragma unroll 4
  for (int at = t; at < groups * 64; at += static_cast<int>(blockDim.x)) {
    const int group = at / 64, bit = at % 64;
    if (!(kept[group] >> bit & 1)) continue;
    const int64_t i = walk.first + at;
    const Word own = walk.own(kept[group], group);
    const int64_t nth = before[group] + __popcll(own & lowest(bit));
    if (listing.indices == nullptr) s.keep[s.rank[i]] = 1;
    else if (nth < limit) listing.indices[nth] = s.order[i];
    if (unfinished && (own >> bit & 1)) s.kept[walk.segment.start + nth] = s.boxes[i];
  }
  if (t == 0 && unfinished) s.kept_count[walk.segment.start] = before[groups];
  if (listing.indices == nullptr || (unfinished && before[groups] < limit)) return;
  const int64_t written = min_of(before[groups], limit);
  if (listing.pad)
    for (int64_t i = written + t; i < limit; i += blockDim.x) listing.indices[i] = -1;
  if (t == 0) *listing.count = written;
}

// Block g goes through the segments that begin in group g. The first warp settles one group after another. Meanwhile
// the others prepare the next group, from what they loaded a group ahead: the second brings what hangs on the last two
// groups, and the rest strike what the groups before these overlap too much. In the end all write.
constexpr int kResolveThreads = 32 * (2 + kStrikers);
template <class S>
__global__ void __launch_bounds__(kResolveThreads)
    resolve_kernel(Greedy<S> s, Round round, int64_t limit, Listing listing) {
  __shared__ Word kept[kMaxWords];
  __shared__ int64_t before[kMaxWords + 1];  // how many of the segment were kept before a group
  __shared__ Overlapped pairs[2][64];
  __shared__ Out out[3];
  const int t = static_cast<int>(threadIdx.x), lane = t % 32, warp = t / 32, striker = warp - 2;
  const Walk walk(s, round, round.first + int64_t(blockIdx.x) * 64);
  if (walk.members == 0) return;
  const int64_t prior = round.from > 0 ? s.kept_count[walk.segment.start] : 0;
  if (round.from > 0 && prior >= limit) return;

  Pair pair;
  Ahead ahead;
  int words = 0;  // ahead
  Word last = 0;
  if (t == 0) before[0] = prior;
  if (warp == 1) {
    if (lane < 3) out[lane] = {};
    __syncwarp();
    pair.load(s, walk, 0);
    pair.bring(pairs[0], out[0], walk.held(0));
    if (walk.groups > 1) pair.load(s, walk, 1);
  }
  __syncthreads();
  int groups = walk.groups;
  for (int group = 0; group < groups; ++group) {
    const int next = group + 1;
    if (warp == 0) {
      const Overlapped low = pairs[group % 2][lane], high = pairs[group % 2][lane + 32];
      last = settle({low.here, high.here}, out[group % 3].with((low.before & last) != 0, (high.before & last) != 0));
      if (lane == 0) kept[group] = last, before[next] = before[group] + __popcll(walk.own(last, group));
    } else if (warp == 1 && next < walk.groups) {
      if (lane == 0) out[(next + 1) % 3] = {};
      pair.bring(pairs[next % 2], out[next % 3], walk.held(next));
      if (next + 1 < walk.groups) pair.load(s, walk, next + 1);
    } else if (next < walk.groups) {
      if (words > 0) ahead.strike(kept + striker, words, out[next % 3]);
      words = next + 1 < walk.groups ? (next - 1 - striker + kStrikers) / kStrikers : 0;  // of groups before `next`
      if (words > 0) ahead.load(walk.mask + striker * s.rows, kStrikers * s.rows, walk, next + 1, words);
    }
    __syncthreads();
    if (walk.groups > 1 && before[next] >= limit) groups = next;  // the segment has enough
  }
  write_kept(s, walk, listing, limit, kept, before, groups);
}

// Fills s.keep, or `listing`, if it has indices.
template <class S>
int greedy(const Greedy<S>& s, const Rounds& rounds, int64_t limit, const Threshold<typename S::Scalar>& threshold,
           const Listing& listing, void* stream) {
  for (int64_t from = 0; from < rounds.longest; from += rounds.chunk) {
    const Round round{from, from + rounds.chunk, rounds.single ? from : 0};
    const int64_t groups = blocks_of(rounds.single ? min_of(rounds.chunk, s.n - from) : s.n, 64);
    const int64_t per_group = max_of<int64_t>(kTargetBlocks / groups, 4);
    const int64_t stripes = min_of(rounds.words, per_group), more = from > 0 ? min_of<int64_t>(64, per_group) : 0;
    const auto compare = [&](int64_t stripes, int64_t more) {
      const dim3 blocks(grid_x(groups), static_cast<unsigned>(stripes + more));
      return launch(compare_kernel<S>, blocks, kCompareThreads, stream, s, round, limit, static_cast<int>(stripes),
                    threshold);
    };
    if (kCostly<S> && more > 0) BOXOPS_TRY(compare(0, more));  // so that the mask is of those still in
    BOXOPS_TRY(compare(stripes, kCostly<S> ? 0 : more));
    BOXOPS_TRY(launch(resolve_kernel<S>, rounds.single ? 1 : grid_x(groups), kResolveThreads, stream, s, round, limit,
                      listing));
  }
  return cudaSuccess;
}

struct Nothing {
  __device__ void operator()(int64_t) const {}
};

// Block b writes the first `limit` kept indices of image b by falling score, then -1; and what comes then.
template <class S, class Then>
__global__ void __launch_bounds__(kCompactThreads)
    emit_kernel(Ordered<S> s, int64_t count, int64_t limit, bool pad, int64_t* indices, int64_t* counts, Then then) {
  const int64_t first = int64_t(blockIdx.x) * count;
  int64_t* out = indices + int64_t(blockIdx.x) * limit;
  const int64_t written = compact(
      count, limit, [&](int64_t i) { return s.keep[first + i] != 0; },
      [&](int64_t at, int64_t i) { out[at] = s.order[first + i] - first; });
  if (pad)
    for (int64_t i = written + threadIdx.x; i < limit; i += blockDim.x) out[i] = -1;
  if (threadIdx.x == 0) counts[blockIdx.x] = written;
  __syncthreads();
  then(blockIdx.x);
}

template <class S, class Then = Nothing>
int emit(const Ordered<S>& s, const NmsInput& input, int64_t limit, bool pad, int64_t* indices, int64_t* counts,
         void* stream, Then then = {}) {
  return launch(emit_kernel<S, Then>, static_cast<unsigned>(input.boxes.batch), kCompactThreads, stream, s,
                input.boxes.count, limit, pad, indices, counts, then);
}

}  // namespace
}  // namespace boxops::cuda
