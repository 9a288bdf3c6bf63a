// Which boxes of a round of many.cuh are kept: one block finds it from the masks of those that each overlaps too much.
//
//   groups  |  64 boxes  |  64 boxes  |  64 boxes  | ...     warp w settles w, w + 32, ...
//   in, out |    word    |    word    |    word    | ...     what is known of them; a sweep reads those of the one
//   before
//
// In a sweep a box that overlaps a kept one is out, and one that overlaps none but boxes that are out is in. Within a
// group that is done till nothing changes, by a warp; across groups once a sweep. The first group that is not settled
// waits for no other, so there are at most as many sweeps as groups, and where scores do not follow places a few.
#pragma once

#include "nms/grid.cuh"
#include "nms/pairs.cuh"

namespace boxops::cuda {
namespace {

constexpr int64_t kMinRound = 4096, kMaxRound = 49 * kTilePlaces, kRounds = 8;  // that many of 100,000 boxes
constexpr int kMaxGroups = kMaxRound / 64;

// Where there is no grid all kept boxes are looked at.
struct NoGrid {
  template <class T>
  NoGrid(Workspace&, int64_t, T) {}
};
__device__ inline void file(const NoGrid&, int) {}

template <class S, class Grid>
struct Many : Ordered<S> {
  int64_t places;     // of a round
  Word* mask;         // [places, places / 64], see many.cuh
  Word* met;          // [places]; zeros between rounds
  int64_t* kept;      // how many so far
  int* listed;        // their places, rising
  unsigned* arrived;  // blocks that are done with the round
  Grid grid;

  Many(Workspace& w, const NmsInput& input, bool sorts, typename S::Scalar threshold = 1)
      : Ordered<S>(w, input, sorts),
        places(min_of(max_of(kTilePlaces * blocks_of(this->n, kRounds * kTilePlaces), kMinRound), kMaxRound)),
        mask(w.take<Word>(places * words())),
        met(w.take<Word>(places)),
        kept(w.take<int64_t>(1)),
        listed(w.take<int>(this->n)),
        arrived(w.take<unsigned>(1)),
        grid(w, this->n, threshold) {}
  BOXOPS_HD int64_t words() const { return places / 64; }
};

// The places [from, to).
struct Places {
  int64_t from, to;
};

// Of the boxes of a round, as bits.
struct Known {
  Word in[kMaxGroups], out[kMaxGroups];
};

// What a lane finds out about a box of a group.
struct Outlook {
  Word own = 0;  // which boxes of the group it overlaps too much, if it does not wait
  bool hit = false, waits = false;

  // Goes through the tiles that it met, up to one of which not all is known; what is behind it is left in `met`.
  __device__ void look(const Word* row, Word* met_of_box, int group, const Known& known) {
    Word met = *met_of_box;
    for (; met != 0 && !waits; met &= met - 1) {
      const int tile = __ffsll(static_cast<long long>(met)) - 1;
      const auto* pairs = reinterpret_cast<const ulonglong2*>(row + tile * kTileWords);
      const ulonglong2 low = pairs[0], high = pairs[1];
      const Word words[kTileWords] = {low.x, low.y, high.x, high.y};
#pragma unroll
      for (int k = 0; k < kTileWords; ++k) {
        const int word = tile * kTileWords + k;
        if (word == group) own = words[k];
        if (word >= group) continue;
        hit = hit || (words[k] & known.in[word]) != 0;
        waits = waits || (words[k] & ~known.out[word]) != 0;
      }
      if (waits || tile == group / kTileWords) break;
    }
    *met_of_box = met;
  }
};

// A warp finds out about a group of boxes what it can from what is known; whether that is all. A lane has two boxes.
template <class Rounds>
__device__ bool settle_group(const Rounds& s, int group, const Known& known, Known& next) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Word in = known.in[group], out = known.out[group];
  if (~(in | out) != 0) {
    Outlook boxes[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int box = group * 64 + half * 32 + lane;
      if (!((in | out) >> (half * 32 + lane) & 1))
        boxes[half].look(s.mask + box * s.words(), &s.met[box], group, known);
    }
    out |= ballot_of_64(boxes[0].hit, boxes[1].hit);
    const Word ready = ~ballot_of_64(boxes[0].waits, boxes[1].waits);
    Word before;
    do {
      before = in | out;
      in |= ballot_of_64(!(boxes[0].own & ~out), !(boxes[1].own & ~out)) & ready & ~out;
      out |= ballot_of_64(boxes[0].own & in, boxes[1].own & in);
    } while (before != (in | out));
  }
  if (lane == 0) next.in[group] = in, next.out[group] = out;
  return ~(in | out) == 0;
}

// The first warp finds how many boxes are kept before each group, and in all.
__device__ inline int64_t count_kept(const Word* in, int groups, int64_t prior, int64_t* before) {
  const int lane = static_cast<int>(threadIdx.x), each = static_cast<int>(blocks_of(groups, 32));
  const int first = lane * each, last = min_of(first + each, groups);
  int own = 0;
  for (int group = first; group < last; ++group) own += __popcll(in[group]);
  const int end = warp_scan(own, [](int a, int b) { return a + b; });
  int64_t at = prior + end - own;
  for (int group = first; group < last; ++group) before[group] = at, at += __popcll(in[group]);
  return prior + __shfl_sync(kFullMask, end, 31);
}

// Keeps boxes of the round, and files them; `prior`: how many are kept of the rounds before.
template <class Rounds>
__device__ void sweep(const Rounds& s, const Places& round, int64_t prior) {
  __shared__ Known known[2];
  __shared__ int64_t before[kMaxGroups];
  const int t = static_cast<int>(threadIdx.x), groups = static_cast<int>(blocks_of(round.to - round.from, 64));
#pragma unroll 4
  for (int box = t; box < groups * 64; box += kRoundThreads) {
    const bool alive = round.from + box < round.to && s.alive[round.from + box] != 0, met = s.met[box] != 0;
    const unsigned in = __ballot_sync(kFullMask, alive && !met), out = __ballot_sync(kFullMask, !alive);
    if (t % 32 > 0) continue;
    reinterpret_cast<unsigned*>(known[0].in)[box / 32] = in;
    reinterpret_cast<unsigned*>(known[0].out)[box / 32] = out;
  }
  __syncthreads();
  int now = 0;
  for (bool open = true; open; now = 1 - now) {
    bool mine = false;
    for (int group = t / 32; group < groups; group += kRoundWarps)
      mine = !settle_group(s, group, known[now], known[1 - now]) || mine;
    open = __syncthreads_or(mine) != 0;
  }
  const Word* in = known[now].in;
  if (t < 32) {
    const int64_t all = count_kept(in, groups, prior, before);
    if (t == 0) *s.kept = all;
  }
  __syncthreads();
#pragma unroll 4
  for (int box = t; box < groups * 64; box += kRoundThreads) {
    s.met[box] = 0;
    if (!(in[box / 64] >> box % 64 & 1)) continue;
    const int place = static_cast<int>(round.from) + box;
    s.keep[s.rank[place]] = 1;
    s.listed[before[box / 64] + __popcll(in[box / 64] & lowest(box % 64))] = place;
    file(s.grid, place);
  }
}

}  // namespace
}  // namespace boxops::cuda
