// Sampling on the device: the anchors of the batch are sorted by (image, kind, key), and the first of each kind are
// taken.
#include "common/cuda_utils.cuh"
#include "common/geometry.h"
#include "common/random.h"
#include "common/sort_space.cuh"
#include "sampling/sampling.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kKinds = 3;  // positives, negatives, ignored

struct State {
  SortSpace all;    // [batch, count]
  int64_t* order;   // likewise
  SortSpace taken;  // [batch, size]

  State(Workspace& w, const Matches& matches, int64_t size)
      : all(w, matches.batch * matches.count),
        order(w.take<int64_t>(matches.batch * matches.count)),
        taken(w, matches.batch * size) {}
};

__device__ uint64_t kind_of(const Matches& matches, int64_t b, int64_t i) {
  const int64_t match = matches.at(b, i);
  return static_cast<uint64_t>(b) * kKinds + (match >= 0 ? 0 : match == -1 ? 1 : 2);
}

// A thread writes the keys of four anchors, which share one block of random numbers.
__global__ void __launch_bounds__(kThreads) random_kernel(Matches matches, Seed seed, State s) {
  const int64_t groups = blocks_of(matches.count, 4), n = matches.batch * groups;
  for (const int64_t at : grid_stride<kThreads>(n)) {
    const int64_t b = at / groups, first = at % groups * 4;
    const Philox random = philox(seed.get(), static_cast<uint64_t>(b), static_cast<uint64_t>(first / 4));
    for (int k = 0; k < 4 && first + k < matches.count; ++k) {
      const int64_t flat = b * matches.count + first + k;
      s.all.keys[flat] = kind_of(matches, b, first + k) << 32 | random.word[k];
      s.all.values[flat] = flat;
    }
  }
}

// A thread writes the key of one anchor: of its loss, of its kind, or of both in one where the loss has 32 bits.
__global__ void __launch_bounds__(kThreads)
    loss_kernel(Scalars loss, Matches matches, bool by_loss, bool by_kind, const int64_t* from, State s) {
  const int64_t n = matches.batch * matches.count;
  for (const int64_t at : grid_stride<kThreads>(n)) {
    const int64_t flat = from == nullptr ? at : from[at], b = flat / matches.count, i = flat % matches.count;
    const uint64_t kind = by_kind ? kind_of(matches, b, i) : 0;
    s.all.keys[at] = by_loss ? kind << 32 | score_key(loss, b, i) : kind;
    s.all.values[at] = flat;
  }
}

// The first place of a kind (and of the kinds after it) among the sorted keys.
__device__ int64_t begin_of(const State& s, uint64_t kind, int shift) {
  return lower_bound(s.all.sorted, s.all.n, kind << shift);
}

// A block takes one image after another: positives, then negatives, then -1, with keys that put their indices in order.
__global__ void __launch_bounds__(kThreads) take_kernel(Matches matches, int64_t size, int64_t max_positives, State s,
                                                        int64_t* num_positive, int64_t* num_sampled) {
  __shared__ int64_t begin[kKinds];
  for (int64_t b = blockIdx.x; b < matches.batch; b += gridDim.x) {
    __syncthreads();
    if (threadIdx.x < kKinds) begin[threadIdx.x] = begin_of(s, static_cast<uint64_t>(b) * kKinds + threadIdx.x, 32);
    __syncthreads();
    const int64_t there = begin[1] - begin[0], positives = there < max_positives ? there : max_positives;
    const int64_t rest = begin[2] - begin[1], negatives = rest < size - positives ? rest : size - positives;
    for (int64_t i = threadIdx.x; i < size; i += kThreads) {
      const int kind = i < positives ? 0 : i < positives + negatives ? 1 : 2;
      const int64_t at = kind == 0 ? begin[0] + i : begin[1] + i - positives;
      const int64_t index = kind == 2 ? -1 : s.order[at] - b * matches.count;
      s.taken.keys[b * size + i] = static_cast<uint64_t>((b * kKinds + kind) * matches.count + (kind == 2 ? 0 : index));
      s.taken.values[b * size + i] = index;
    }
    if (threadIdx.x == 0) num_positive[b] = positives, num_sampled[b] = positives + negatives;
  }
}

// Block (x, y): a thread marks one sorted anchor of image y after another.
__global__ void __launch_bounds__(kThreads)
    mask_kernel(Matches matches, double ratio, int64_t min_negatives, int shift, State s, uint8_t* mask) {
  __shared__ int64_t begin[kKinds];
  const int64_t count = matches.count;
  for (int64_t b = blockIdx.y; b < matches.batch; b += gridDim.y) {
    __syncthreads();
    if (threadIdx.x < kKinds) begin[threadIdx.x] = begin_of(s, static_cast<uint64_t>(b) * kKinds + threadIdx.x, shift);
    __syncthreads();
    const int64_t target = hard_negatives(begin[1] - begin[0], ratio, min_negatives, count);
    for (const int64_t i : grid_stride<kThreads>(count)) {
      const int64_t at = b * count + i;
      mask[s.order[at]] = at >= begin[1] && at < begin[2] && at - begin[1] < target;
    }
  }
}

}  // namespace

size_t sampling_workspace(const Matches& matches, int64_t size) {
  Workspace w(nullptr);
  State(w, matches, size);
  return w.used();
}

int sample_matches(const Matches& matches, int64_t size, int64_t max_positives, const Seed& seed, int64_t* indices,
                   int64_t* num_positive, int64_t* num_sampled, void* workspace, void* stream) {
  Workspace w(workspace);
  const State s(w, matches, size);
  const int64_t n = matches.batch * matches.count, taken = matches.batch * size, kinds = matches.batch * kKinds;
  if (n > 0) {
    const int64_t groups = matches.batch * blocks_of(matches.count, 4);
    BOXOPS_TRY(launch(random_kernel, grid_x(blocks_of(groups, kThreads)), kThreads, stream, matches, seed, s));
    BOXOPS_TRY(s.all.sort(s.order, 32 + bits_of(kinds), stream));
  }
  BOXOPS_TRY(launch(take_kernel, grid_x(matches.batch), kThreads, stream, matches, size, max_positives, s, num_positive,
                    num_sampled));
  if (taken == 0) return cudaSuccess;
  return s.taken.sort(indices, bits_of(kinds * max_of<int64_t>(1, matches.count)), stream);
}

int mine_hard_negatives(const Scalars& loss, const Matches& matches, double ratio, int64_t min_negatives, uint8_t* mask,
                        void* workspace, void* stream) {
  Workspace w(workspace);
  const State s(w, matches, 0);
  const int64_t n = matches.batch * matches.count, kinds = matches.batch * kKinds;
  if (n == 0) return cudaSuccess;
  const unsigned grid = grid_x(blocks_of(n, kThreads));
  const bool wide = score_key_bits(loss.dtype) == 64;
  BOXOPS_TRY(launch(loss_kernel, grid, kThreads, stream, loss, matches, true, !wide, nullptr, s));
  BOXOPS_TRY(s.all.sort(s.order, wide ? 64 : 32 + bits_of(kinds), stream));
  if (wide) {  // a stable sort by kind on top
    BOXOPS_TRY(launch(loss_kernel, grid, kThreads, stream, loss, matches, false, true, s.order, s));
    BOXOPS_TRY(s.all.sort(s.order, bits_of(kinds), stream));
  }
  const dim3 blocks(grid_x(blocks_of(matches.count, 8 * kThreads)), grid_yz(matches.batch));
  return launch(mask_kernel, blocks, kThreads, stream, matches, ratio, min_negatives, wide ? 0 : 32, s, mask);
}

}  // namespace boxops::cuda
