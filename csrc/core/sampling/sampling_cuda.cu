// Sampling on the device: the anchors of the batch are sorted by (image, kind, key), and the first of each kind are
// taken.
#include "common/cuda_utils.cuh"
#include "common/geometry.h"
#include "common/random.h"
#include "common/tile_sort.cuh"
#include "sampling/sampling.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kKinds = 3;  // positives, negatives, ignored

// The anchors of the batch, [batch, count], by rising key.
struct Anchors {
  SortSpace space;
  int64_t* order;
  int64_t* by_loss;  // the order by losses of 64 bits alone

  Anchors(Workspace& w, const Matches& matches, bool wide)
      : space(w, matches.batch * matches.count),
        order(w.take<int64_t>(space.n)),
        by_loss(w.take<int64_t>(wide ? space.n : 0)) {}
};

// [batch, size], in the order in which they were taken; `places` are theirs by rising key.
struct Samples {
  SortSpace space;
  uint64_t* keys;
  int64_t *indices, *places;

  Samples(Workspace& w, const Matches& matches, int64_t size)
      : space(w, matches.batch * size),
        keys(w.take<uint64_t>(space.n)),
        indices(w.take<int64_t>(space.n)),
        places(w.take<int64_t>(space.n)) {}
};

__device__ uint64_t kind_of(const Matches& matches, int64_t b, int64_t i) {
  const int64_t match = matches.at(b, i);
  return static_cast<uint64_t>(b) * kKinds + (match >= 0 ? 0 : match == -1 ? 1 : 2);
}

// Of anchor i of image b, `flat` = b count + i.
struct RandomKey {
  Matches matches;
  Seed seed;
  __device__ uint64_t operator()(int64_t flat) const {
    const int64_t b = flat / matches.count, i = flat % matches.count;
    const Philox random = philox(seed.get(), static_cast<uint64_t>(b), static_cast<uint64_t>(i / 4));
    return kind_of(matches, b, i) << 32 | random.word[i % 4];
  }
};
// Of its loss, its kind, or both in one where the loss has 32 bits.
struct LossKey {
  Scalars loss;
  Matches matches;
  bool by_loss, by_kind;
  __device__ uint64_t operator()(int64_t flat) const {
    const int64_t b = flat / matches.count, i = flat % matches.count;
    const uint64_t kind = by_kind ? kind_of(matches, b, i) : 0;
    return by_loss ? kind << 32 | score_key(loss, b, i) : kind;
  }
};
// The first place of a kind (and of the kinds after it) among the sorted keys.
__device__ int64_t begin_of(const Anchors& anchors, uint64_t kind, int shift) {
  return lower_bound(anchors.space.sorted, anchors.space.n, kind << shift);
}

// A block takes one image after another: positives, then negatives, then -1, with keys that put their indices in order.
__global__ void __launch_bounds__(kThreads)
    take_kernel(Matches matches, int64_t size, int64_t max_positives, Anchors anchors, Samples samples,
                int64_t* num_positive, int64_t* num_sampled) {
  __shared__ int64_t begin[kKinds];
  for (int64_t b = blockIdx.x; b < matches.batch; b += gridDim.x) {
    __syncthreads();
    if (threadIdx.x < kKinds)
      begin[threadIdx.x] = begin_of(anchors, static_cast<uint64_t>(b) * kKinds + threadIdx.x, 32);
    __syncthreads();
    const int64_t there = begin[1] - begin[0], positives = there < max_positives ? there : max_positives;
    const int64_t rest = begin[2] - begin[1], negatives = rest < size - positives ? rest : size - positives;
    for (int64_t i = threadIdx.x; i < size; i += kThreads) {
      const int kind = i < positives ? 0 : i < positives + negatives ? 1 : 2;
      const int64_t at = kind == 0 ? begin[0] + i : begin[1] + i - positives;
      const int64_t index = kind == 2 ? -1 : anchors.order[at] - b * matches.count;
      samples.keys[b * size + i] = static_cast<uint64_t>((b * kKinds + kind) * matches.count + (kind == 2 ? 0 : index));
      samples.indices[b * size + i] = index;
    }
    if (threadIdx.x == 0) num_positive[b] = positives, num_sampled[b] = positives + negatives;
  }
}

// A thread writes one sample.
__global__ void __launch_bounds__(kThreads) write_kernel(Samples samples, int64_t* indices) {
  for (const int64_t i : grid_stride<kThreads>(samples.space.n)) indices[i] = samples.indices[samples.places[i]];
}

// Block (x, y): a thread marks one sorted anchor of image y after another.
__global__ void __launch_bounds__(kThreads)
    mask_kernel(Matches matches, double ratio, int64_t min_negatives, int shift, Anchors anchors, uint8_t* mask) {
  __shared__ int64_t begin[kKinds];
  const int64_t count = matches.count;
  for (int64_t b = blockIdx.y; b < matches.batch; b += gridDim.y) {
    __syncthreads();
    if (threadIdx.x < kKinds)
      begin[threadIdx.x] = begin_of(anchors, static_cast<uint64_t>(b) * kKinds + threadIdx.x, shift);
    __syncthreads();
    const int64_t target = hard_negatives(begin[1] - begin[0], ratio, min_negatives, count);
    for (const int64_t i : grid_stride<kThreads>(count)) {
      const int64_t at = b * count + i;
      mask[anchors.order[at]] = at >= begin[1] && at < begin[2] && at - begin[1] < target;
    }
  }
}

bool is_wide(const Scalars& loss) { return score_key_bits(loss.dtype) == 64; }

}  // namespace

size_t sample_matches_workspace(const Matches& matches, int64_t size) {
  Workspace w(nullptr);
  Anchors(w, matches, false), Samples(w, matches, size);
  return w.used();
}

size_t mine_hard_negatives_workspace(const Scalars& loss, const Matches& matches) {
  Workspace w(nullptr);
  Anchors(w, matches, is_wide(loss));
  return w.used();
}

int sample_matches(const Matches& matches, int64_t size, int64_t max_positives, const Seed& seed, int64_t* indices,
                   int64_t* num_positive, int64_t* num_sampled, void* workspace, void* stream) {
  Workspace w(workspace);
  const Anchors anchors(w, matches, false);
  const Samples samples(w, matches, size);
  const int64_t taken = samples.space.n, kinds = matches.batch * kKinds;
  if (anchors.space.n > 0)
    BOXOPS_TRY(
        sort_by_once(RandomKey{matches, seed}, nullptr, 32 + bits_of(kinds), anchors.space, anchors.order, stream));
  BOXOPS_TRY(launch(take_kernel, grid_x(matches.batch), kThreads, stream, matches, size, max_positives, anchors,
                    samples, num_positive, num_sampled));
  if (taken == 0) return cudaSuccess;
  BOXOPS_TRY(sort_by(StoredKey{samples.keys}, nullptr, bits_of(kinds * max_of<int64_t>(1, matches.count)),
                     samples.space, samples.places, stream));
  return launch(write_kernel, grid_x(blocks_of(taken, kThreads)), kThreads, stream, samples, indices);
}

int mine_hard_negatives(const Scalars& loss, const Matches& matches, double ratio, int64_t min_negatives, uint8_t* mask,
                        void* workspace, void* stream) {
  Workspace w(workspace);
  const bool wide = is_wide(loss);
  const Anchors anchors(w, matches, wide);
  const int kind_bits = bits_of(matches.batch * kKinds);
  if (anchors.space.n == 0) return cudaSuccess;
  if (wide)  // by loss, and stably by kind on top
    BOXOPS_TRY(sort_by(LossKey{loss, matches, true, false}, nullptr, 64, anchors.space, anchors.by_loss, stream));
  BOXOPS_TRY(sort_by(LossKey{loss, matches, !wide, true}, wide ? anchors.by_loss : nullptr, (wide ? 0 : 32) + kind_bits,
                     anchors.space, anchors.order, stream));
  const dim3 blocks(grid_x(blocks_of(matches.count, 8 * kThreads)), grid_yz(matches.batch));
  return launch(mask_kernel, blocks, kThreads, stream, matches, ratio, min_negatives, wide ? 0 : 32, anchors, mask);
}

}  // namespace boxops::cuda
