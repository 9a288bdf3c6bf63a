#include "pipelines/detect.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include <boxops/nms.h>
#include "common/copy.h"
#include "pipelines/select.h"

namespace boxops::cpu {
namespace {

// The pairs of image b with a score above the threshold, rising. S: the score's compute type.
template <class S>
std::vector<int32_t> pairs_above(const DetectInput& in, int64_t b, double threshold) {
  std::vector<int32_t> pairs;
  const int64_t* strides = in.score_strides;
  const int64_t at = b * strides[0];
  if (in.classes == 1 || strides[1] == in.classes * strides[2]) {
    const int64_t stride = in.classes == 1 ? strides[1] : strides[2];
    select_above<S>({in.scores, in.score_dtype, 1, stride}, at, 0, in.count * in.classes, static_cast<S>(threshold),
                    false, pairs);
    return pairs;
  }
  std::vector<int32_t> row;
  if (strides[1] < strides[2]) {  // a class's scores lie together: class by class, and counted into the order of pairs
    std::vector<int32_t> found, next(in.count + 1);
    std::vector<size_t> ends;
    for (int64_t c = 0; c < in.classes; ++c) {
      row.clear();
      select_above<S>({in.scores, in.score_dtype, 1, strides[1]}, at + c * strides[2], 0, in.count,
                      static_cast<S>(threshold), false, row);
      for (const int32_t n : row) ++next[n + 1];
      found.insert(found.end(), row.begin(), row.end());
      ends.push_back(found.size());
    }
    std::partial_sum(next.begin(), next.end(), next.begin());
    pairs.resize(found.size());
    size_t i = 0;
    for (int64_t c = 0; c < in.classes; ++c)
      for (; i < ends[c]; ++i) pairs[next[found[i]]++] = static_cast<int32_t>(found[i] * in.classes + c);
    return pairs;
  }
  for (int64_t n = 0; n < in.count; ++n) {
    row.clear();
    select_above<S>({in.scores, in.score_dtype, 1, strides[2]}, at + n * strides[1], 0, in.classes,
                    static_cast<S>(threshold), false, row);
    for (const int32_t c : row) pairs.push_back(static_cast<int32_t>(n * in.classes) + c);
  }
  return pairs;
}

// Leaves the `per_class` best of each class.
void cut_classes(const DetectInput& in, int64_t b, int64_t per_class, std::vector<int32_t>& pairs) {
  std::vector<int64_t> starts(in.classes + 1);
  for (const int32_t pair : pairs) ++starts[pair % in.classes + 1];
  for (int64_t c = 0; c < in.classes; ++c) starts[c + 1] += starts[c];
  std::vector<std::pair<uint64_t, int32_t>> ranked(pairs.size());
  std::vector<int64_t> next(starts.begin(), starts.end() - 1);
  for (const int32_t pair : pairs) ranked[next[pair % in.classes]++] = {key_of(in, b, pair), pair};
  pairs.clear();
  for (int64_t c = 0; c < in.classes; ++c) {
    const auto begin = ranked.begin() + starts[c], end = ranked.begin() + starts[c + 1];
    const auto last = begin + std::min<int64_t>(per_class, end - begin);
    if (last != end) std::nth_element(begin, last, end);
    for (auto i = begin; i != last; ++i) pairs.push_back(i->second);
  }
  std::sort(pairs.begin(), pairs.end());
}

template <class T>
void detect_image(const DetectInput& in, const DetectOptions& o, const DetectOutput& out, int64_t b) {
  std::vector<int32_t> pairs = with_compute_type(
      in.score_dtype, [&](auto score) { return pairs_above<decltype(score)>(in, b, o.score_threshold); });
  if (o.has_min_size) {
    const auto small = [&](int32_t pair) { return !is_large(box_of<T>(in, b, pair), static_cast<T>(o.min_size)); };
    pairs.erase(std::remove_if(pairs.begin(), pairs.end(), small), pairs.end());
  }
  if (o.per_class >= 0) cut_classes(in, b, o.per_class, pairs);

  const auto n = static_cast<int64_t>(pairs.size());
  std::vector<Box<T>> boxes(n);
  std::vector<uint64_t> ranks(n);  // rise with the score
  std::vector<int32_t> labels(o.class_agnostic ? 0 : n);
  for (int64_t i = 0; i < n; ++i) {
    boxes[i] = box_of<T>(in, b, pairs[i]);
    ranks[i] = ~key_of(in, b, pairs[i]);
    if (!o.class_agnostic) labels[i] = static_cast<int32_t>(pairs[i] % in.classes);
  }
  const NmsInput input{Boxes::contiguous(reinterpret_cast<const T*>(boxes.data()), n),
                       Scalars::contiguous(ranks.data(), n), !o.class_agnostic, Scalars::contiguous(labels.data(), n)};
  std::vector<int64_t> kept(o.max_output);
  nms_padded(input, o.iou_threshold, {o.max_output, false, 0.0}, kept.data(), out.counts + b, Serial());
  const int64_t box_size = size_of(in.box_dtype), score_size = size_of(in.score_dtype), first = b * o.max_output;
  for (int64_t d = 0; d < out.counts[b]; ++d) {
    const int32_t pair = pairs[kept[d]];
    for (int k = 0; k < 4; ++k)
      copy_number(box_size, in.boxes, box_at(in, b, pair) + k * in.box_strides[3], out.boxes, (first + d) * 4 + k);
    copy_number(score_size, in.scores, score_at(in, b, pair), out.scores, first + d);
    out.labels[first + d] = pair % in.classes;
  }
  const int64_t begin = first + out.counts[b], end = first + o.max_output;
  std::fill(static_cast<char*>(out.boxes) + begin * 4 * box_size, static_cast<char*>(out.boxes) + end * 4 * box_size,
            0);
  std::fill(static_cast<char*>(out.scores) + begin * score_size, static_cast<char*>(out.scores) + end * score_size, 0);
  std::fill(out.labels + begin, out.labels + end, -1);
}

}  // namespace

void detect(const DetectInput& in, const DetectOptions& o, const DetectOutput& out, const Parallel& parallel) {
  constexpr double kScoreNs = 2;  // the cost of a score on one core: 0.7 where few pass the threshold, 40 where all do
  with_compute_type(in.box_dtype, [&](auto t) {
    using T = decltype(t);
    parallel.share(in.batch, kScoreNs * in.count * in.classes, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) detect_image<T>(in, o, out, b);
    });
  });
}

}  // namespace boxops::cpu
