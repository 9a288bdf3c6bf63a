// Proposals on the device: one sort of all logits by (image, level, falling logit) puts the best of every level in
// front of its stretch; only those are decoded, into slots, min(pre_nms_top_n, size) for each level; then nms_padded
// with the level as the group.
#include <utility>

#include <boxops/nms.h>
#include "common/cuda_utils.cuh"
#include "common/sort_space.cuh"
#include "pipelines/proposals.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
struct State {
  int64_t batch, anchors, levels, slots, longest;  // longest: the slots of the largest level
  int64_t *level_offsets, *slot_offsets;  // [levels + 1], where a level starts among an image's anchors, and slots
  double* image_sizes;                    // [B, 2]
  SortSpace space;                        // [B, A]
  int64_t *spare, *order;                 // order: [B, A] flat indices, sorted
  T *boxes, *scores;                      // [B, slots]; score -1 where there is no candidate
  uint8_t* groups;                        // [B, slots], as int32 where there are more than 256 levels
  int64_t* indices;                       // [B, post_nms_top_n] slots
  void* nms;
  bool narrow;  // the sort key of a logit leaves room for (image, level) above it

  DType group_type() const { return levels <= 256 ? DType::kUInt8 : DType::kInt32; }
  NmsInput nms_input() const {
    return {Boxes::contiguous(boxes, slots, Format::kXYXY, batch),
            Scalars::contiguous(scores, slots),
            true,
            {groups, group_type(), slots, 1},
            longest};
  }
};

int64_t slots_of(const ProposalsInput& in, const ProposalsOptions& o, int64_t level) {
  return min_of(o.pre_nms_top_n, in.level_offsets[level + 1] - in.level_offsets[level]);
}

template <class T>
State<T> carve(void* base, const ProposalsInput& in, const ProposalsOptions& o, size_t* bytes) {
  Workspace w(base);
  State<T> s;
  s.batch = in.deltas.batch, s.anchors = in.deltas.count, s.levels = in.levels, s.slots = s.longest = 0;
  for (int64_t level = 0; level < in.levels; ++level) {
    s.slots += slots_of(in, o, level);
    s.longest = max_of(s.longest, slots_of(in, o, level));
  }
  const int64_t n = s.batch * s.anchors, m = s.batch * s.slots;
  s.level_offsets = w.take<int64_t>(s.levels + 1), s.slot_offsets = w.take<int64_t>(s.levels + 1);
  s.image_sizes = w.take<double>(2 * s.batch);
  s.space = SortSpace(w, n), s.order = w.take<int64_t>(n);
  s.narrow = score_key_bits(in.objectness.dtype) == 32 && bits_of(s.batch * s.levels) <= 32;
  s.spare = w.take<int64_t>(s.narrow ? 0 : n);
  s.boxes = w.take<T>(4 * m), s.scores = w.take<T>(m);
  s.groups = w.take<uint8_t>(m * size_of(s.group_type()));
  s.indices = w.take<int64_t>(s.batch * o.post_nms_top_n);
  s.nms = w.take<char>(static_cast<int64_t>(nms_workspace(s.nms_input(), o.post_nms_top_n)));
  *bytes = w.used();
  return s;
}

// Numbers of the host travel as arguments of a kernel: a copy from pageable memory would wait, or not be captured.
constexpr int kUpload = 256;
template <class V>
struct Upload {
  V values[kUpload];
};

// A thread writes one number.
template <class V>
__global__ void __launch_bounds__(kUpload) upload_kernel(Upload<V> numbers, int64_t n, V* to) {
  if (threadIdx.x < n) to[threadIdx.x] = numbers.values[threadIdx.x];
}

// to[i] = value(i), for the i < n in their order.
template <class V, class F>
int upload(V* to, int64_t n, void* stream, F value) {
  for (int64_t first = 0; first < n; first += kUpload) {
    Upload<V> numbers = {};
    const int64_t count = min_of<int64_t>(kUpload, n - first);
    for (int64_t i = 0; i < count; ++i) numbers.values[i] = value(first + i);
    BOXOPS_TRY(launch(upload_kernel<V>, 1, kUpload, stream, numbers, count, to + first));
  }
  return cudaSuccess;
}

// The level that holds place i: the last whose offset is not above i.
__device__ int64_t level_of(const int64_t* offsets, int64_t levels, int64_t i) {
  return partition_point(levels - 1, [&](int64_t level) { return offsets[level + 1] <= i; });
}

// A thread writes the sort key of one anchor: its logit's, or where that leaves room, (image, level) above it; or, with
// `from`, that of (image, level) alone.
template <class T>
__global__ void key_kernel(ProposalsInput in, State<T> s, const int64_t* from) {
  const int64_t n = s.batch * s.anchors;
  for (const int64_t i : grid_stride<kThreads>(n)) {
    const int64_t flat = from == nullptr ? i : from[i], b = flat / s.anchors, anchor = flat % s.anchors;
    const uint64_t level = b * s.levels + level_of(s.level_offsets, s.levels, anchor);
    const uint64_t key = from == nullptr ? score_key(in.objectness, b, anchor) : level;
    s.space.keys[i] = s.narrow ? level << 32 | key : key;
    s.space.values[i] = flat;
  }
}

// A thread decodes the anchor of one slot.
template <class T>
__global__ void decode_kernel(ProposalsInput in, ProposalsOptions o, State<T> s) {
  const int64_t n = s.batch * s.slots;
  for (const int64_t i : grid_stride<kThreads>(n)) {
    const int64_t b = i / s.slots, slot = i % s.slots, level = level_of(s.slot_offsets, s.levels, slot);
    const int64_t rank = slot - s.slot_offsets[level];
    const int64_t anchor = s.order[b * s.anchors + s.level_offsets[level] + rank] - b * s.anchors;
    const T height = static_cast<T>(s.image_sizes[2 * b]), width = static_cast<T>(s.image_sizes[2 * b + 1]);
    Box<T> box;
    T score;
    const bool stays = propose(in, o, height, width, b, anchor, &box, &score);
    s.boxes[4 * i] = box.x1, s.boxes[4 * i + 1] = box.y1, s.boxes[4 * i + 2] = box.x2, s.boxes[4 * i + 3] = box.y2;
    s.scores[i] = stays ? score : T(-1);
    if (s.levels <= 256) s.groups[i] = static_cast<uint8_t>(level);
    else reinterpret_cast<int32_t*>(s.groups)[i] = static_cast<int32_t>(level);
  }
}

// A thread writes one proposal.
template <class T>
__global__ void gather_kernel(State<T> s, int64_t post_nms_top_n, T* boxes, T* scores) {
  const int64_t n = s.batch * post_nms_top_n;
  for (const int64_t i : grid_stride<kThreads>(n)) {
    const int64_t slot = s.indices[i], from = i / post_nms_top_n * s.slots + slot;
    for (int k = 0; k < 4; ++k) boxes[4 * i + k] = slot < 0 ? T(0) : s.boxes[4 * from + k];
    scores[i] = slot < 0 ? T(0) : s.scores[from];
  }
}

// Fills `order`. Logits of 32 bits leave room for (image, level) in the key; of 64 bits, two stable sorts are needed.
template <class T>
int sort(const ProposalsInput& in, const State<T>& s, void* stream) {
  const int64_t n = s.batch * s.anchors;
  const int level_bits = bits_of(s.batch * s.levels), key_bits = score_key_bits(in.objectness.dtype);
  const unsigned blocks = grid_x(blocks_of(n, kThreads));
  BOXOPS_TRY(launch(key_kernel<T>, blocks, kThreads, stream, in, s, nullptr));
  BOXOPS_TRY(s.space.sort(s.narrow ? s.order : s.spare, s.narrow ? 32 + level_bits : key_bits, stream));
  if (s.narrow) return cudaSuccess;
  BOXOPS_TRY(launch(key_kernel<T>, blocks, kThreads, stream, in, s, s.spare));
  return s.space.sort(s.order, level_bits, stream);
}

}  // namespace

size_t generate_proposals_workspace(const ProposalsInput& input, const ProposalsOptions& options) {
  size_t bytes;
  with_compute_type(compute_type_of(input), [&](auto t) { carve<decltype(t)>(nullptr, input, options, &bytes); });
  return bytes;
}

int generate_proposals(const ProposalsInput& in, const ProposalsOptions& o, void* boxes, void* scores, int64_t* counts,
                       void* workspace, void* stream) {
  return with_compute_type(compute_type_of(in), [&](auto t) -> int {
    using T = decltype(t);
    size_t bytes;
    const State<T> s = carve<T>(workspace, in, o, &bytes);
    if (s.batch * s.slots > 0) {
      BOXOPS_TRY(upload(s.level_offsets, s.levels + 1, stream, [&](int64_t i) { return in.level_offsets[i]; }));
      int64_t slot = 0;
      BOXOPS_TRY(upload(s.slot_offsets, s.levels + 1, stream, [&](int64_t level) {
        return level < s.levels ? std::exchange(slot, slot + slots_of(in, o, level)) : slot;
      }));
      BOXOPS_TRY(upload(s.image_sizes, 2 * s.batch, stream, [&](int64_t i) { return in.image_sizes[i]; }));
      BOXOPS_TRY(sort(in, s, stream));
      BOXOPS_TRY(launch(decode_kernel<T>, grid_x(blocks_of(s.batch * s.slots, kThreads)), kThreads, stream, in, o, s));
    }
    BOXOPS_TRY(
        nms_padded(s.nms_input(), o.iou_threshold, {o.post_nms_top_n, true, -0.5}, s.indices, counts, s.nms, stream));
    return launch(gather_kernel<T>, grid_x(blocks_of(s.batch * o.post_nms_top_n, kThreads)), kThreads, stream, s,
                  o.post_nms_top_n, static_cast<T*>(boxes), static_cast<T*>(scores));
  });
}

}  // namespace boxops::cuda
