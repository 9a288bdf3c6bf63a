// The greedy pass of NMS on the device for very many boxes: all places in rounds of 4,096, whatever the segments.
//
//   1. near_kernel   each box of the round against the boxes before it in the round, as a bit mask, and against the
//                    kept boxes of the rounds before that lie near it (grid.cuh);
//   2. sweep_kernel  one block finds which boxes of the round are kept, and files them.
//
//   groups of 64 places |    0   |    1   |    2   |   63   |
//   mask, a row a box   | word 0 | word 1 |  ....  |        |    bits of the boxes before it that it overlaps too much;
//   met, a word a box     bit w: word w has bits                words without bits are not written
//
// In a sweep a box that overlaps a kept one is out, and one that overlaps none but boxes that are out is in. Within a
// group that is done till nothing changes, by a warp; across groups once a sweep. The first group that is not settled
// waits for no other, so there are at most as many sweeps as groups, and where scores do not follow places a few.
//
// Floor: for each round of 4,096 the 8 million pairs, some 10 us, and some us for the sweeps.
#pragma once

#include "nms/grid.cuh"
#include "nms/settle.cuh"

namespace boxops::cuda {
namespace {

constexpr int64_t kManyFrom = 1 << 14;
constexpr int kRoundGroups = 64, kRoundPlaces = kRoundGroups * 64;

template <class T>
struct Many : Ordered<Upright<T>> {
  Word* mask;     // [kRoundPlaces, kRoundGroups]
  Word* met;      // [kRoundPlaces]; zeros between rounds
  int64_t* kept;  // how many so far
  KeptGrid grid;

  Many(Workspace& w, const NmsInput& input, bool sorts, T threshold = T(1))
      : Ordered<Upright<T>>(w, input, sorts),
        mask(w.take<Word>(kRoundPlaces * kRoundGroups)),
        met(w.take<Word>(kRoundPlaces)),
        kept(w.take<int64_t>(1)),
        grid(w, this->n, threshold) {}
};

// Whether it is for these; places are ints in the grid.
inline bool are_many(const NmsInput& input, int64_t limit) {
  const int64_t longest = input.has_groups ? min_of(input.boxes.count, input.longest_group) : input.boxes.count;
  return min_of(longest, limit) >= kManyFrom && input.boxes.batch * input.boxes.count < std::numeric_limits<int>::max();
}

// The places [from, to).
struct Places {
  int64_t from, to;
};

// A thread finds the home of one place's box, and empties what the rounds fill.
template <class T>
__global__ void home_kernel(Many<T> s) {
  for (const int64_t i : grid_stride(s.n)) s.grid.home[i] = home_of(s.grid, s.boxes[i], s.segment[i].start);
  for (const int64_t slot : grid_stride(s.grid.slots())) s.grid.heads[slot] = -1;
  for (const int64_t i : grid_stride(kRoundPlaces)) s.met[i] = 0;
  if (blockIdx.x == 0 && threadIdx.x == 0) *s.grid.odd_count = 0, *s.kept = 0;
}

// Block (x, y) holds group x, a box a thread. Of the first kStripes values of y each writes every so many-th word of
// their masks; in the others each warp takes a box in turn, and strikes it if a kept box overlaps it too much.
constexpr int kStripes = 32, kSearchers = 32;
template <class T>
__global__ void __launch_bounds__(64) near_kernel(Many<T> s, Places round, int64_t limit, Threshold<T> threshold) {
  __shared__ Upright<T> columns[64];
  const int t = static_cast<int>(threadIdx.x), group = static_cast<int>(blockIdx.x), y = static_cast<int>(blockIdx.y);
  const int64_t first = round.from + group * 64, i = first + t;
  if (*s.kept >= limit) return;

  if (y >= kStripes) {
    for (int k = (y - kStripes) * 2 + t / 32; k < 64 && first + k < round.to; k += kSearchers * 2) {
      const bool gone = s.alive[first + k] != 0 && meets_kept(s, s.grid, first + k, *s.kept, threshold);
      __syncwarp();
      if (gone && t % 32 == 0) s.alive[first + k] = 0;
    }
    return;
  }

  const Upright<T> box = s.boxes[min_of(i, s.n - 1)];
  const int64_t begin = s.segment[min_of(i, s.n - 1)].start, least = s.segment[first].start;
  Word met = 0;
  for (int word = y; word <= group; word += kStripes) {
    const int64_t place = round.from + word * 64;
    if (place + 64 <= least) continue;  // no box of the group has its segment there
    __syncthreads();
    columns[t] = s.boxes[min_of(place + t, s.n - 1)];
    __syncthreads();
    const Word bits = overlapping<false>(columns, box, threshold) & lowest(i - place) & ~lowest(begin - place);
    if (i >= round.to || bits == 0) continue;
    s.mask[(i - round.from) * kRoundGroups + word] = bits;
    met |= Word(1) << word;
  }
  if (met != 0) atomicOr(&s.met[i - round.from], met);
}

// A group of 64 boxes of a round, which a warp settles; each lane has two of them.
struct Unsettled {
  int group;
  Word in, out;         // of the group
  Word own[2], met[2];  // own: the mask's word of the group; met: the other words still to look at

  template <class T>
  __device__ void load(const Many<T>& s, const Places& round, int group_) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    group = group_, in = 0;
    bool alive[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int box = group * 64 + half * 32 + lane;
      alive[half] = round.from + box < round.to && s.alive[round.from + box] != 0;
      met[half] = s.met[box], s.met[box] = 0;
      own[half] = met[half] >> group & 1 ? s.mask[box * kRoundGroups + group] : 0;
      met[half] &= ~(Word(1) << group);
    }
    out = ~ballot_of_64(alive[0], alive[1]);
  }
  __device__ bool done() const { return ~(in | out) == 0; }

  // `ins` and `outs`: what is known of all groups.
  __device__ void sweep(const Word* mask, const Word* ins, const Word* outs) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    bool waits[2], hit[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Word* row = mask + (group * 64 + half * 32 + lane) * kRoundGroups;
      waits[half] = hit[half] = false;
      if ((in | out) >> (half * 32 + lane) & 1) continue;
      for (; met[half] != 0; met[half] &= met[half] - 1) {
        const int word = __ffsll(static_cast<long long>(met[half])) - 1;
        const Word bits = row[word];
        hit[half] = (bits & ins[word]) != 0, waits[half] = (bits & ~outs[word]) != 0;
        if (waits[half]) break;
      }
    }
    out |= ballot_of_64(hit[0], hit[1]);
    const Word ready = ~ballot_of_64(waits[0], waits[1]);
    Word before;
    do {
      before = in | out;
      in |= ballot_of_64(!(own[0] & ~out), !(own[1] & ~out)) & ready & ~out;
      out |= ballot_of_64(own[0] & in, own[1] & in);
    } while (before != (in | out));
  }
};

constexpr int kSweepThreads = kRoundGroups / 2 * 32;
template <class T>
__global__ void __launch_bounds__(kSweepThreads) sweep_kernel(Many<T> s, Places round, int64_t limit) {
  __shared__ Word ins[kRoundGroups], outs[kRoundGroups];
  __shared__ int64_t before[kRoundGroups];  // how many boxes were kept before a group
  const int t = static_cast<int>(threadIdx.x), lane = t % 32, warp = t / 32;
  const int64_t prior = *s.kept;
  if (prior >= limit) return;
  Unsettled groups[2];
  groups[0].load(s, round, warp), groups[1].load(s, round, warp + 32);
  while (true) {
#pragma unroll
    for (int k = 0; k < 2; ++k)
      if (lane == k) ins[groups[k].group] = groups[k].in, outs[groups[k].group] = groups[k].out;
    if (!__syncthreads_or(!groups[0].done() || !groups[1].done())) break;
#pragma unroll
    for (int k = 0; k < 2; ++k)
      if (!groups[k].done()) groups[k].sweep(s.mask, ins, outs);
    __syncthreads();
  }
  if (t < 32) {
    const int low = __popcll(ins[2 * t]), both = low + __popcll(ins[2 * t + 1]);
    const int64_t end = prior + warp_scan(both, [](int a, int b) { return a + b; });
    before[2 * t] = end - both, before[2 * t + 1] = end - both + low;
    if (t == 31) *s.kept = end;
  }
  __syncthreads();
#pragma unroll 4
  for (int box = t; box < kRoundPlaces; box += kSweepThreads) {
    const Word in = ins[box / 64];
    if (!(in >> box % 64 & 1)) continue;
    const int64_t i = round.from + box;
    s.keep[s.rank[i]] = 1;
    file(s.grid, i, before[box / 64] + __popcll(in & lowest(box % 64)));
  }
}

// `limit`: when so many are kept the rest need not be looked at.
template <class T>
int keep_of_many(const Many<T>& s, int64_t limit, const Threshold<T>& threshold, void* stream,
                 int64_t places = kRoundPlaces) {
  BOXOPS_TRY(launch(home_kernel<T>, grid_x(blocks_of(s.n, kThreads)), kThreads, stream, s));
  for (int64_t from = 0; from < s.n; from += places) {
    const Places round{from, min_of(from + places, s.n)};
    const dim3 blocks(static_cast<unsigned>(blocks_of(round.to - from, 64)), kStripes + kSearchers);
    BOXOPS_TRY(launch(near_kernel<T>, blocks, 64, stream, s, round, limit, threshold));
    BOXOPS_TRY(launch(sweep_kernel<T>, 1, kSweepThreads, stream, s, round, limit));
  }
  return cudaSuccess;
}

}  // namespace
}  // namespace boxops::cuda
