#include "pipelines/proposals.h"

#include <algorithm>
#include <vector>

#include <boxops/nms.h>
#include "pipelines/select.h"

namespace boxops::cpu {
namespace {

template <class T>
struct Candidates {
  std::vector<Box<T>> boxes;
  std::vector<T> scores;
};

template <class T>
Candidates<T> candidates_of(const ProposalsInput& in, const ProposalsOptions& o, int64_t b, int64_t level) {
  const T height = static_cast<T>(in.image_sizes[2 * b]), width = static_cast<T>(in.image_sizes[2 * b + 1]);
  const auto top =
      select_top<T>(in.objectness, b, in.level_offsets[level], in.level_offsets[level + 1], o.pre_nms_top_n);
  Candidates<T> found;
  found.boxes.reserve(top.size()), found.scores.reserve(top.size());
  for (const int64_t i : top) {
    Box<T> box;
    T score;
    if (propose(in, o, height, width, b, i, &box, &score)) found.boxes.push_back(box), found.scores.push_back(score);
  }
  return found;
}

// The proposals of one image, from the candidates of its levels.
template <class T>
int64_t suppress(const Candidates<T>* levels, int64_t level_count, const ProposalsOptions& o, T* boxes, T* scores) {
  Candidates<T> all;
  std::vector<int32_t> groups;
  for (int64_t level = 0; level < level_count; ++level) {
    const Candidates<T>& candidates = levels[level];
    all.boxes.insert(all.boxes.end(), candidates.boxes.begin(), candidates.boxes.end());
    all.scores.insert(all.scores.end(), candidates.scores.begin(), candidates.scores.end());
    groups.resize(all.scores.size(), static_cast<int32_t>(level));
  }
  const auto n = static_cast<int64_t>(groups.size());
  const NmsInput input{Boxes::contiguous(reinterpret_cast<const T*>(all.boxes.data()), n),
                       Scalars::contiguous(all.scores.data(), n), true, Scalars::contiguous(groups.data(), n)};
  std::vector<int64_t> indices(o.post_nms_top_n);
  int64_t count = 0;
  nms_padded(input, o.iou_threshold, {o.post_nms_top_n, false, 0.0}, indices.data(), &count, Serial());
  for (int64_t p = 0; p < count; ++p) {
    const Box<T>& box = all.boxes[indices[p]];
    boxes[4 * p] = box.x1, boxes[4 * p + 1] = box.y1, boxes[4 * p + 2] = box.x2, boxes[4 * p + 3] = box.y2;
    scores[p] = all.scores[indices[p]];
  }
  std::fill(boxes + 4 * count, boxes + 4 * o.post_nms_top_n, T(0));
  std::fill(scores + count, scores + o.post_nms_top_n, T(0));
  return count;
}

}  // namespace

void generate_proposals(const ProposalsInput& in, const ProposalsOptions& o, void* boxes, void* scores, int64_t* counts,
                        const Parallel& parallel) {
  with_compute_type(compute_type_of(in), [&](auto t) {
    using T = decltype(t);
    const int64_t batch = in.deltas.batch;
    std::vector<Candidates<T>> candidates(batch * in.levels);
    constexpr double kAnchorNs = 2, kCandidateNs = 100;  // the costs on one core
    parallel.share(batch * in.levels, kAnchorNs * in.deltas.count / std::max<int64_t>(1, in.levels),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i)
                       candidates[i] = candidates_of<T>(in, o, i / in.levels, i % in.levels);
                   });
    const int64_t most = std::min(in.deltas.count, in.levels * std::min(in.deltas.count, o.pre_nms_top_n));
    parallel.share(batch, kCandidateNs * most, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t first = b * o.post_nms_top_n;
        counts[b] = suppress(candidates.data() + b * in.levels, in.levels, o, static_cast<T*>(boxes) + 4 * first,
                             static_cast<T*>(scores) + first);
      }
    });
  });
}

}  // namespace boxops::cpu
