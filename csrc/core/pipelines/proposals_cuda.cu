// Proposals on the device: one sort of all logits by (image, level, falling logit) puts the best of every level in
// front of its stretch; only those are decoded, into slots, min(pre_nms_top_n, size) for each level; then NMS with the
// level as the group. The slots of a level are by falling score, so NMS takes them as they come; only for the order of
// the result each finds its rank in the other levels.
#include <type_traits>
#include <utility>

#include <boxops/nms.h>
#include "common/sort_space.cuh"
#include "nms/resolve.cuh"
#include "pipelines/proposals.h"

namespace boxops::cuda {
namespace {

// Numbers of the host that kernels read. Few travel as arguments of each kernel; more are written to the workspace by
// kernels, since a copy from pageable memory would wait, or not be captured.
constexpr int kFewNumbers = 32, kUpload = 256;
template <class V>
struct HostNumbers {
  int64_t n;
  V* many;  // null: few
  V few[kFewNumbers];
  HostNumbers(Workspace& w, int64_t n) : n(n), many(n > kFewNumbers ? w.take<V>(n) : nullptr), few() {}
  __device__ V operator[](int64_t i) const { return many == nullptr ? few[i] : many[i]; }
};
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
int upload(HostNumbers<V>& to, void* stream, F value) {
  if (to.many == nullptr) {
    for (int64_t i = 0; i < to.n; ++i) to.few[i] = value(i);
    return cudaSuccess;
  }
  for (int64_t first = 0; first < to.n; first += kUpload) {
    Upload<V> numbers = {};
    const int64_t count = min_of<int64_t>(kUpload, to.n - first);
    for (int64_t i = 0; i < count; ++i) numbers.values[i] = value(first + i);
    BOXOPS_TRY(launch(upload_kernel<V>, 1, kUpload, stream, numbers, count, to.many + first));
  }
  return cudaSuccess;
}

// A float's sigmoid never falls as logits rise (pipelines.h), so that a level's slots are sorted by score: NMS need
// not. Of double the last bit may.
template <class T>
constexpr bool kSorted = std::is_same_v<T, float>;

// The slots of all levels.
struct Sizes {
  int64_t slots = 0, longest = 0;  // longest: the slots of the largest level
  static int64_t of(const ProposalsInput& in, const ProposalsOptions& o, int64_t level) {
    return min_of(o.pre_nms_top_n, in.level_offsets[level + 1] - in.level_offsets[level]);
  }
  Sizes(const ProposalsInput& in, const ProposalsOptions& o) {
    for (int64_t level = 0; level < in.levels; ++level) {
      slots += of(in, o, level);
      longest = max_of(longest, of(in, o, level));
    }
  }
};

template <class T>
struct State : Sizes {
  int64_t batch, anchors, levels;
  bool narrow;                                       // the sort key of a logit leaves room for (image, level) above it
  HostNumbers<int64_t> level_offsets, slot_offsets;  // where a level starts among an image's anchors, and slots
  HostNumbers<double> image_sizes;                   // [B, 2]
  SortSpace space;                                   // [B, A]
  int64_t *spare, *order;                            // order: [B, A] flat indices, sorted
  Box<T>* boxes;                                     // [B, slots]
  T* scores;
  int64_t* indices;        // [B, post_nms_top_n] slots
  uint8_t* groups;         // [B, slots], as int32 where there are more than 256 levels; not where it is sorted
  void* nms_space;         // nor this
  Greedy<Upright<T>> nms;  // where it is sorted

  State(Workspace& w, const ProposalsInput& in, const ProposalsOptions& o)
      : Sizes(in, o),
        batch(in.deltas.batch),
        anchors(in.deltas.count),
        levels(in.levels),
        narrow(score_key_bits(in.objectness.dtype) == 32 && bits_of(batch * levels) <= 32),
        level_offsets(w, levels + 1),
        slot_offsets(w, levels + 1),
        image_sizes(w, 2 * batch),
        space(w, batch * anchors),
        spare(w.take<int64_t>(narrow ? 0 : batch * anchors)),
        order(w.take<int64_t>(batch * anchors)),
        boxes(w.take<Box<T>>(batch * slots)),
        scores(w.take<T>(batch * slots)),
        indices(w.take<int64_t>(batch * o.post_nms_top_n)),
        groups(w.take<uint8_t>(kSorted<T> ? 0 : batch * slots * size_of(group_type()))),
        nms_space(
            w.take<char>(kSorted<T> ? 0 : static_cast<int64_t>(nms_workspace(nms_input(slots), o.post_nms_top_n)))),
        nms(w, nms_input(kSorted<T> ? slots : 0), Rounds(nms_input(kSorted<T> ? slots : 0), o.post_nms_top_n), false) {}

  DType group_type() const { return levels <= 256 ? DType::kUInt8 : DType::kInt32; }
  NmsInput nms_input(int64_t count) const {
    return {Boxes::contiguous(reinterpret_cast<const T*>(boxes), count, Format::kXYXY, batch),
            Scalars::contiguous(scores, count),
            true,
            {groups, group_type(), count, 1},
            longest};
  }
};

// The level that holds place i: the last whose offset is not above i.
__device__ int64_t level_of(const HostNumbers<int64_t>& offsets, int64_t levels, int64_t i) {
  return partition_point(levels - 1, [&](int64_t level) { return offsets[level + 1] <= i; });
}

// A thread writes the sort key of one anchor: its logit's, or where that leaves room, (image, level) above it; or, with
// `from`, that of (image, level) alone.
template <class T>
__global__ void logit_key_kernel(ProposalsInput in, State<T> s, const int64_t* from) {
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
    s.boxes[i] = box;
    s.scores[i] = kSorted<T> || stays ? score : T(-1);
    if (kSorted<T>) {
      const Upright<T> shape{shape_of<Measure::kIoU>(box)};
      s.nms.boxes[i] = shape;
      s.nms.alive[i] = stays ? 1 : 0;
    } else if (s.levels <= 256) {
      s.groups[i] = static_cast<uint8_t>(level);
    } else {
      reinterpret_cast<int32_t*>(s.groups)[i] = static_cast<int32_t>(level);
    }
  }
}

// A thread finds the rank of one slot in its image: of each level, how many slots are before it.
template <class T>
__global__ void rank_kernel(State<T> s) {
  const int64_t n = s.batch * s.slots;
  for (const int64_t i : grid_stride<kThreads>(n)) {
    const int64_t slot = i % s.slots, image = i - slot, level = level_of(s.slot_offsets, s.levels, slot);
    const auto start = [&](int64_t level) { return image + s.slot_offsets[level]; };
    const uint64_t key = falling_key(s.scores[i]);
    int64_t rank = image + i - start(level);
    for (int64_t other = 0; other < s.levels; ++other)
      if (other != level)
        rank += partition_point(start(other + 1) - start(other), [&](int64_t at) {
          const uint64_t its = falling_key(s.scores[start(other) + at]);
          return other < level ? its <= key : its < key;
        });
    s.nms.rank[i] = rank, s.nms.order[rank] = i, s.nms.keep[rank] = 0;
    s.nms.segment[i] = {start(level), start(level + 1)};
  }
}

// The threads of a block write the proposals of an image, from their slots.
template <class T>
struct Gather {
  const int64_t* slots;  // [B, wanted]
  int64_t wanted, slots_of_image;
  const Box<T>* from_boxes;
  const T* from_scores;
  Box<T>* boxes;
  T* scores;
  __device__ void operator()(int64_t image) const {
    for (int64_t i = image * wanted + threadIdx.x; i < (image + 1) * wanted; i += blockDim.x) {
      const int64_t slot = slots[i], from = image * slots_of_image + slot;
      boxes[i] = slot < 0 ? Box<T>{} : from_boxes[from];
      scores[i] = slot < 0 ? T(0) : from_scores[from];
    }
  }
};
template <class T>
__global__ void __launch_bounds__(kCompactThreads) gather_kernel(Gather<T> gather) {
  gather(blockIdx.x);
}

// Fills `order`. Logits of 32 bits leave room for (image, level) in the key; of 64 bits, two stable sorts are needed.
template <class T>
int sort(const ProposalsInput& in, const State<T>& s, void* stream) {
  const int64_t n = s.batch * s.anchors;
  const int level_bits = bits_of(s.batch * s.levels), key_bits = score_key_bits(in.objectness.dtype);
  const unsigned blocks = grid_x(blocks_of(n, kThreads));
  BOXOPS_TRY(launch(logit_key_kernel<T>, blocks, kThreads, stream, in, s, nullptr));
  BOXOPS_TRY(s.space.sort(s.narrow ? s.order : s.spare, s.narrow ? 32 + level_bits : key_bits, stream));
  if (s.narrow) return cudaSuccess;
  BOXOPS_TRY(launch(logit_key_kernel<T>, blocks, kThreads, stream, in, s, s.spare));
  return s.space.sort(s.order, level_bits, stream);
}

}  // namespace

size_t generate_proposals_workspace(const ProposalsInput& input, const ProposalsOptions& options) {
  return with_compute_type(compute_type_of(input), [&](auto t) {
    Workspace w(nullptr);
    const State<decltype(t)> s(w, input, options);
    return w.used();
  });
}

int generate_proposals(const ProposalsInput& in, const ProposalsOptions& o, void* boxes, void* scores, int64_t* counts,
                       void* workspace, void* stream) {
  return with_compute_type(compute_type_of(in), [&](auto t) -> int {
    using T = decltype(t);
    Workspace w(workspace);
    State<T> s(w, in, o);
    const int64_t limit = o.post_nms_top_n, slots = s.batch * s.slots;
    const unsigned blocks = grid_x(blocks_of(slots, kThreads));
    if (slots > 0) {
      BOXOPS_TRY(upload(s.level_offsets, stream, [&](int64_t i) { return in.level_offsets[i]; }));
      int64_t slot = 0;
      BOXOPS_TRY(upload(s.slot_offsets, stream, [&](int64_t level) {
        return level < s.levels ? std::exchange(slot, slot + Sizes::of(in, o, level)) : slot;
      }));
      BOXOPS_TRY(upload(s.image_sizes, stream, [&](int64_t i) { return in.image_sizes[i]; }));
      BOXOPS_TRY(sort(in, s, stream));
      BOXOPS_TRY(launch(decode_kernel<T>, blocks, kThreads, stream, in, o, s));
    }
    const Gather<T> gather{
        s.indices, limit, s.slots, s.boxes, s.scores, static_cast<Box<T>*>(boxes), static_cast<T*>(scores)};
    const NmsInput candidates = s.nms_input(s.slots);
    if constexpr (kSorted<T>) {
      BOXOPS_TRY(launch(rank_kernel<T>, blocks, kThreads, stream, s));
      if (slots > 0)
        BOXOPS_TRY(
            greedy(s.nms, Rounds(candidates, limit), limit, Threshold<T>(static_cast<T>(o.iou_threshold)), {}, stream));
      return emit(s.nms, candidates, limit, true, s.indices, counts, stream, gather);
    } else {
      BOXOPS_TRY(nms_padded(candidates, o.iou_threshold, {limit, true, -0.5}, s.indices, counts, s.nms_space, stream));
      return launch(gather_kernel<T>, static_cast<unsigned>(s.batch), kCompactThreads, stream, gather);
    }
  });
}

}  // namespace boxops::cuda
