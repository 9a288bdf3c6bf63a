// The order in which greedy NMS on the device goes through the boxes of all images.
//
//   rank    image by image, by falling score, which is the order of the result
//   place   the same with the groups of an image apart: a run of equal (image, group) is a segment
//
//             image 0                      image 1
//   place  | a a a a | b b | c c c c c | a | b b b b |     letters are groups; by falling score in each segment
//            segment = [start, end) of its places
//
// Few boxes find their places by counting: a box compares itself with all others of its image, all boxes at once, which
// is one launch. More are sorted: by (image, score), then by the slot of (image, group) in a hash table. Which segment
// comes first leaves no trace in the result.
#pragma once

#include <type_traits>

#include "common/count_ranks.cuh"
#include "common/cuda_utils.cuh"
#include "common/tile_sort.cuh"
#include "nms/overlap.cuh"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxCounted = int64_t(1) << 27;  // pairs, some 30 us

struct Span {
  int64_t start, end;
};

inline bool by_counting(const NmsInput& input) {
  const int64_t count = input.boxes.count;
  return count < (1 << 14) && input.boxes.batch <= kMaxCounted / max_of<int64_t>(count * count, 1);
}

template <class S>
struct Ordered {
  int64_t n;
  int64_t* order;  // by rank: index among the boxes of all images
  uint8_t* keep;   // by rank: is kept
  int64_t* rank;   // by place
  S* boxes;        // by place
  Span* segment;   // by place
  int* alive;      // by place: is a candidate, and no kept box of an earlier round overlaps it too much
  // Where it is sorted:
  SortSpace space;
  int64_t slots;              // of the hash table, a power of two
  unsigned long long* table;  // by slot: the first box that came

  Ordered(Workspace& w, const NmsInput& input, bool sorts)
      : n(input.boxes.batch * input.boxes.count),
        order(w.take<int64_t>(n)),
        keep(w.take<uint8_t>(n)),
        rank(w.take<int64_t>(n)),
        boxes(w.take<S>(n)),
        segment(w.take<Span>(n)),
        alive(w.take<int>(n)),
        space(w, sorts ? n : 0),
        slots(space.n > 0 && input.has_groups ? int64_t(1) << bits_of(2 * n) : 0),
        table(w.take<unsigned long long>(slots)) {}

  __device__ void put(const NmsInput& input, const PaddedOptions& options, int64_t flat, int64_t rank_of_it,
                      int64_t place, const Span& span) const {
    const int64_t batch = flat / input.boxes.count, i = flat % input.boxes.count;
    keep[rank_of_it] = 0;
    rank[place] = rank_of_it;
    segment[place] = span;
    alive[place] =
        !options.has_score_threshold || score_exceeds(input.scores, batch, i, options.score_threshold) ? 1 : 0;
    fetch(input.boxes, batch, i, &boxes[place]);
  }
};

// Counting

// Block (x, y): 32 boxes of image y, a lane each, against all boxes of the image, which are dealt to the warps.
template <class S, bool grouped, bool wide>
__global__ void __launch_bounds__(kCountThreads) count_kernel(NmsInput input, PaddedOptions options, Ordered<S> s) {
  using Key = std::conditional_t<grouped || wide, uint64_t, uint32_t>;
  alignas(16) __shared__ Key keys[kCountedAtOnce];
  __shared__ uint64_t groups[grouped ? kCountedAtOnce : 1];
  __shared__ int sums[4][32];
  const int t = static_cast<int>(threadIdx.x), lane = t % 32, warp = t / 32;
  const int count = static_cast<int>(input.boxes.count), i = static_cast<int>(blockIdx.x) * 32 + lane;
  for (int64_t b = blockIdx.y; b < input.boxes.batch; b += gridDim.y) {
    const auto key_of = [&](int j) {
      const uint64_t key = score_key(input.scores, b, j);
      return static_cast<Key>(grouped && !wide ? key << 32 | static_cast<uint64_t>(j) : key);
    };
    Key key = 0;
    uint64_t group = 0;
    if (i < count) {
      key = key_of(i);
      if (grouped) group = group_key(input.groups, b, i);
    }
    int before = 0, lower = 0, equal = 0,
        inside = 0;  // boxes of the image; of lower groups; of its own; before it there
    for (int first = 0; first < count; first += kCountedAtOnce) {
      const int m = min_of(kCountedAtOnce, count - first);
      __syncthreads();
      if (t < m) {
        keys[t] = key_of(first + t);
        if (grouped) groups[t] = group_key(input.groups, b, first + t);
      } else {
        keys[t] = static_cast<Key>(~uint64_t(0));  // before none
      }
      __syncthreads();
      if constexpr (!grouped) {
        before += count_before(keys, m, first, i, key);
      } else {
#pragma unroll 4
        for (int j = warp; j < m; j += kCountWarps) {
          const bool earlier = keys[j] < key || (wide && keys[j] == key && first + j < i);
          before += earlier;
          lower += groups[j] < group, equal += groups[j] == group, inside += groups[j] == group && earlier;
        }
      }
    }
    if (warp == 0) sums[0][lane] = sums[1][lane] = sums[2][lane] = sums[3][lane] = 0;
    __syncthreads();
    atomicAdd(&sums[0][lane], before);
    if (grouped) atomicAdd(&sums[1][lane], lower), atomicAdd(&sums[2][lane], equal), atomicAdd(&sums[3][lane], inside);
    __syncthreads();
    if (warp == 0 && i < count) {
      const int64_t image = b * count, rank = image + sums[0][lane], start = image + sums[1][lane];
      s.order[rank] = image + i;
      s.put(input, options, image + i, rank, grouped ? start + sums[3][lane] : rank,
            grouped ? Span{start, start + sums[2][lane]} : Span{image, image + count});
    }
  }
}

// Sorting

enum class By { kScore, kImage, kImageAndScore };

// The sort key of a box. On the way each box clears some of the slots.
template <class S>
struct BoxKey {
  NmsInput input;
  By by;
  Ordered<S> s;
  __device__ uint64_t operator()(int64_t flat) const {
    for (int64_t slot = flat; slot < s.slots; slot += s.n) s.table[slot] = ~0ull;
    const uint64_t batch = flat / input.boxes.count;
    if (by == By::kImage) return batch;
    const uint64_t score = score_key(input.scores, batch, flat % input.boxes.count);
    return by == By::kScore ? score : batch << 32 | score;
  }
};

// The slot of a rank's (image, group): that of the first box of its segment to come.
template <class S>
struct SlotKey {
  NmsInput input;
  Ordered<S> s;
  __device__ uint64_t operator()(int64_t rank) const {
    const uint64_t flat = s.order[rank], count = input.boxes.count, batch = flat / count;
    const uint64_t group = group_key(input.groups, batch, flat % count);
    uint64_t hash = (group ^ batch << 32) * 0x9e3779b97f4a7c15ull;
    hash ^= hash >> 32;
    for (;; ++hash) {
      const uint64_t slot = hash & (s.slots - 1), first = atomicCAS(&s.table[slot], ~0ull, flat);
      if (first == ~0ull || (first / count == batch && group_key(input.groups, batch, first % count) == group))
        return slot;
    }
  }
};

// A thread puts one box to its place.
template <class S>
__global__ void put_kernel(NmsInput input, PaddedOptions options, Ordered<S> s) {
  for (const int64_t i : grid_stride(s.n)) {
    const int64_t rank = input.has_groups ? s.rank[i] : i, flat = s.order[rank];
    const int64_t count = input.boxes.count, image = flat / count * count;
    Span span{image, image + count};
    if (input.has_groups) {
      const uint64_t slot = s.space.sorted[i];
      span = {lower_bound(s.space.sorted, s.n, slot), lower_bound(s.space.sorted, s.n, slot + 1)};
    }
    s.put(input, options, flat, rank, i, span);
  }
}

// Host

template <class S>
int count(const NmsInput& input, const PaddedOptions& options, const Ordered<S>& s, void* stream) {
  const dim3 blocks(static_cast<unsigned>(blocks_of(input.boxes.count, 32)), grid_yz(input.boxes.batch));
  const bool wide = score_key_bits(input.scores.dtype) > 32;
  const auto kernel = input.has_groups ? (wide ? count_kernel<S, true, true> : count_kernel<S, true, false>)
                                       : (wide ? count_kernel<S, false, true> : count_kernel<S, false, false>);
  return launch(kernel, blocks, kCountThreads, stream, input, options, s);
}

// Stable sorts from the least to the most significant key.
template <class S>
int sort(const NmsInput& input, const PaddedOptions& options, const Ordered<S>& s, void* stream) {
  const auto sort_boxes = [&](By by, const int64_t* from, int64_t* to, int bits) {
    return sort_by_once(BoxKey<S>{input, by, s}, from, bits, s.space, to, stream);
  };
  const int64_t batch = input.boxes.batch;
  const int bits = score_key_bits(input.scores.dtype);
  if (batch == 1) {
    BOXOPS_TRY(sort_boxes(By::kScore, nullptr, s.order, bits));
  } else if (bits == 32) {
    BOXOPS_TRY(sort_boxes(By::kImageAndScore, nullptr, s.order, 32 + bits_of(batch)));
  } else {
    BOXOPS_TRY(sort_boxes(By::kScore, nullptr, s.rank, bits));  // `rank` serves as the spare
    BOXOPS_TRY(sort_boxes(By::kImage, s.rank, s.order, bits_of(batch)));
  }
  if (input.has_groups)
    BOXOPS_TRY(sort_by_once(SlotKey<S>{input, s}, nullptr, bits_of(s.slots), s.space, s.rank, stream));
  return launch(put_kernel<S>, grid_x(blocks_of(s.n, kThreads)), kThreads, stream, input, options, s);
}

}  // namespace
}  // namespace boxops::cuda
