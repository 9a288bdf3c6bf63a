#include "common/blocks.h"
#include "matching/matching.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <type_traits>
#include <vector>

#include "common/isa.h"
#include "common/simd_tile.h"

namespace boxops {
namespace {

template <class T>
using Lane = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;  // an integer as wide as T

}  // namespace
}  // namespace boxops

#define BOXOPS_SIMD_SOURCE "matching/matching_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

constexpr double kPairNs = 0.15, kMatrixPairNs = 2, kAnchorNs = 3;  // the costs on one core

// A tile of anchors with the box around all of them: what does not meet that meets none of them.
template <class T>
class AnchorTile {
 public:
  // Loads anchors [first, first + size()), unless they are there already.
  void load(const Boxes& anchors, int64_t image, int64_t first) {
    const int64_t at = image * anchors.batch_stride + first * anchors.box_stride;
    if (first == first_ && at == at_) return;
    first_ = first, at_ = at, size_ = static_cast<int>(std::min<int64_t>(kTile, anchors.count - first));
    load_tile<Measure::kIoU>(anchors, image, first, size_, tile_);
    constexpr T inf = std::numeric_limits<T>::infinity();
    Shape<T> none{};
    none.x1 = none.y1 = inf, none.x2 = none.y2 = -inf;
    for (int j = size_; j < padded(); ++j) tile_.set(j, none);
    hull_ = none;
    for (int j = 0; j < size_; ++j) {
      hull_.x1 = min_of(tile_.x1[j], hull_.x1), hull_.y1 = min_of(tile_.y1[j], hull_.y1);
      hull_.x2 = max_of(tile_.x2[j], hull_.x2), hull_.y2 = max_of(tile_.y2[j], hull_.y2);
    }
  }
  bool may_meet(const Box<T>& b) const {
    return b.x1 < hull_.x2 && hull_.x1 < b.x2 && b.y1 < hull_.y2 && hull_.y1 < b.y2;
  }
  const Tile<T>& tile() const { return tile_; }
  int size() const { return size_; }
  int padded() const { return static_cast<int>(blocks_of(size_, kLanes)) * kLanes; }  // with boxes that meet nothing

 private:
  static constexpr int kLanes = 16;
  Tile<T> tile_;
  Box<T> hull_{};
  int64_t first_ = -1, at_ = -1;
  int size_ = 0;
};

template <class T>
std::vector<Shape<T>> shapes(const Boxes& boxes) {
  std::vector<Shape<T>> all(boxes.count);
  for (int64_t i = 0; i < boxes.count; ++i) all[i] = shape_of<Measure::kIoU>(load_box<T>(boxes, 0, i));
  return all;
}

// The IoUs of one box with the anchors of a tile, padded.
template <class T>
void iou_row(const Shape<T>& box, const AnchorTile<T>& anchors, T* row) {
  const auto kernel = BOXOPS_BY_ISA(iou_row<false, T>), guarded = baseline::iou_row<true, T>;
  (anchors.tile().huge || is_huge<Measure::kIoU>(box) ? guarded : kernel)(box, anchors.tile(), anchors.padded(), row);
}

// The ground truths of an image, on average.
double mean_boxes(const MatchInput& input) {
  return static_cast<double>(input.images.total) / static_cast<double>(std::max<int64_t>(1, input.images.batch));
}

// One chunk of anchors after another, for all images: finds each anchor's best box and, unless `peaks` is null, the
// largest IoU of every box in the chunk, peaks[G, chunks], which must be zero before.
// Then calls finish(image, first anchor, tile, best, which).
template <class T, class Finish>
void scan(const MatchInput& input, const std::vector<Shape<T>>& boxes, int64_t chunk, T* peaks, const Finish& finish,
          const Parallel& parallel) {
  const int64_t batch = input.anchors.batch, count = input.anchors.count, chunks = blocks_of(count, chunk);
  const auto best_row = BOXOPS_BY_ISA(best_row<false, T>), guarded = baseline::best_row<true, T>;
  const double anchor_ns = kAnchorNs + kPairNs * mean_boxes(input);
  parallel.share(batch * chunks, anchor_ns * std::min(chunk, count), [&](int64_t begin, int64_t end) {
    AnchorTile<T> anchors;
    alignas(64) T best[kTile];
    alignas(64) Lane<T> which[kTile];
    for (int64_t task = begin; task < end; ++task) {
      const int64_t c = task / batch, image = task % batch;  // images that share the anchors share the tile loaded
      const int64_t from = input.images.begin(image), n = input.images.count(image);
      for (int64_t first = c * chunk; first < std::min(count, (c + 1) * chunk); first += kTile) {
        anchors.load(input.anchors, image, first);
        std::fill_n(best, kTile, T(0));
        std::fill_n(which, kTile, Lane<T>(0));
        for (int64_t g = 0; g < n; ++g) {
          const Shape<T>& box = boxes[from + g];
          if (!anchors.may_meet(box)) continue;
          const T highest = (anchors.tile().huge || is_huge<Measure::kIoU>(box) ? guarded : best_row)(
              box, static_cast<Lane<T>>(g), anchors.tile(), anchors.padded(), best, which);
          if (peaks != nullptr) {
            T& peak = peaks[(from + g) * chunks + c];
            peak = max_of(peak, highest);
          }
        }
        finish(image, first, anchors, best, which);
      }
    }
  });
}

// Marks, as ~which, the anchors whose IoU with some box is that box's largest. A box that no anchor overlaps has the
// largest IoU 0 with all anchors, and so marks them all: `all[image]`.
template <class T>
void restore(const MatchInput& input, const std::vector<Shape<T>>& boxes, int64_t chunk, const std::vector<T>& peaks,
             int64_t* matches, std::vector<uint8_t>& all, const Parallel& parallel) {
  const int64_t count = input.anchors.count, chunks = blocks_of(count, chunk);
  std::vector<int64_t> image_of(boxes.size());
  std::vector<T> highest(boxes.size());
  for (int64_t image = 0; image < input.anchors.batch; ++image)
    for (int64_t g = input.images.begin(image); g < input.images.end(image); ++g) {
      image_of[g] = image;
      highest[g] = *std::max_element(peaks.begin() + g * chunks, peaks.begin() + (g + 1) * chunks);
      if (highest[g] == T(0)) all[image] = 1;
    }
  parallel.share(static_cast<int64_t>(boxes.size()), kAnchorNs * std::min(chunk, count) + kPairNs * chunks,
                 [&](int64_t begin, int64_t end) {
                   AnchorTile<T> anchors;
                   alignas(64) T row[kTile];
                   for (int64_t g = begin; g < end; ++g) {
                     if (all[image_of[g]]) continue;
                     for (int64_t c = 0; c < chunks; ++c) {
                       if (peaks[g * chunks + c] != highest[g]) continue;
                       for (int64_t first = c * chunk; first < std::min(count, (c + 1) * chunk); first += kTile) {
                         anchors.load(input.anchors, image_of[g], first);
                         iou_row(boxes[g], anchors, row);
                         int64_t* to = matches + image_of[g] * count + first;
                         for (int j = 0; j < anchors.size(); ++j)
                           if (row[j] == highest[g]) {  // other threads may mark the same anchor
                             const int64_t m = __atomic_load_n(to + j, __ATOMIC_RELAXED);
                             if (m >= 0) __atomic_store_n(to + j, ~m, __ATOMIC_RELAXED);
                           }
                       }
                     }
                   }
                 });
}

// Sets to -2 the matches of a tile that are -1 and that an ignore box covers.
template <class T>
void ignore(const MaxIouRule<T>& rule, const std::vector<Shape<T>>& ignore_boxes, int64_t image,
            const AnchorTile<T>& anchors, int64_t* matches) {
  const auto covered_row = BOXOPS_BY_ISA(covered_row<false, T>), guarded = baseline::covered_row<true, T>;
  alignas(64) Lane<T> covered[kTile] = {};
  for (int64_t i = rule.ignored.begin(image); i < rule.ignored.end(image); ++i)
    if (anchors.may_meet(ignore_boxes[i]))
      (anchors.tile().huge ? guarded : covered_row)(ignore_boxes[i], anchors.tile(), anchors.padded(),
                                                    rule.ignore_threshold, covered);
  for (int j = 0; j < anchors.size(); ++j)
    if (matches[j] == -1 && covered[j]) matches[j] = -2;
}

template <class T>
void match_by(const MatchInput& input, const MaxIouRule<T>& rule, int64_t* matches, T* ious, const Parallel& parallel) {
  const int64_t count = input.anchors.count, chunk = chunk_of(count, input.gt_boxes.count, kTile);
  const std::vector<Shape<T>> boxes = shapes<T>(input.gt_boxes), ignore_boxes = shapes<T>(rule.ignore_boxes);
  const auto judge = [&](bool restored, int64_t which, T iou) {
    return restored || iou >= rule.high ? which : iou >= rule.low ? -2 : -1;
  };
  const bool low_quality = rule.allow_low_quality && count > 0 && !boxes.empty();
  std::vector<T> peaks(low_quality ? boxes.size() * blocks_of(count, chunk) : 0);
  scan<T>(
      input, boxes, chunk, low_quality ? peaks.data() : nullptr,
      [&](int64_t image, int64_t first, const AnchorTile<T>& anchors, const T* best, const Lane<T>* which) {
        const bool none = input.images.count(image) == 0;
        int64_t* to = matches + image * count + first;
        for (int j = 0; j < anchors.size(); ++j) to[j] = none ? -1 : judge(low_quality, which[j], best[j]);
        std::copy_n(best, anchors.size(), ious + image * count + first);
        if (!low_quality && !ignore_boxes.empty()) ignore(rule, ignore_boxes, image, anchors, to);
      },
      parallel);
  if (!low_quality) return;

  std::vector<uint8_t> all(input.anchors.batch, 0);
  restore(input, boxes, chunk, peaks, matches, all, parallel);
  const int64_t tiles = blocks_of(count, kTile);
  const double tile_ns = kAnchorNs * std::min<int64_t>(count, kTile);
  parallel.share(input.anchors.batch * tiles, tile_ns, [&](int64_t begin, int64_t end) {
    AnchorTile<T> anchors;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / tiles, first = task % tiles * kTile, at = image * count + first;
      const int64_t n = std::min<int64_t>(kTile, count - first);
      if (input.images.count(image) > 0 && !all[image])
        for (int64_t i = at; i < at + n; ++i)
          matches[i] = matches[i] < 0 ? ~matches[i] : judge(false, matches[i], ious[i]);
      if (rule.ignored.count(image) == 0) continue;
      anchors.load(input.anchors, image, first);
      ignore(rule, ignore_boxes, image, anchors, matches + at);
    }
  });
}

// The largest entry left in a column.
template <class T>
struct Head {
  T value;
  int64_t anchor, box;
  bool operator<(const Head& o) const {  // comes later
    return value != o.value ? value < o.value : anchor != o.anchor ? anchor > o.anchor : box > o.box;
  }
};

// The greedy rule on one image. peaks[boxes, chunks] bound what is left of each column in each chunk, NaN where nothing
// is; they are exact to begin with, and brought up to date where they mislead. read(first, n, box) gives n values
// of a column as an array. `zero_is_least`: no value is below 0, and so all ends when 0 is the largest.
template <class T, class Read>
void assign(int64_t anchors, int64_t boxes, int64_t chunk, T* peaks, bool zero_is_least, Read read, int64_t* matches,
            T* ious) {
  const int64_t chunks = blocks_of(anchors, chunk);
  std::vector<uint8_t> taken(anchors, 0);
  const auto head = [&](int64_t box) -> Head<T> {
    T* peak = peaks + box * chunks;
    for (;;) {
      int64_t c = -1;
      for (int64_t i = 0; i < chunks; ++i)
        if (c < 0 ? peak[i] == peak[i] : peak[i] > peak[c]) c = i;
      if (c < 0) return {T(0), -1, box};
      const int64_t end = std::min(anchors, (c + 1) * chunk);
      int64_t at = -1;
      T max = T(0);
      for (int64_t first = c * chunk; first < end && !(at >= 0 && max == peak[c]); first += kTile) {
        const int n = static_cast<int>(std::min<int64_t>(kTile, end - first));
        const T* values = read(first, n, box);
        for (int j = 0; j < n; ++j)
          if (!taken[first + j] && (at < 0 || values[j] > max)) max = values[j], at = first + j;
      }
      if (at >= 0 && max == peak[c]) return {max, at, box};
      peak[c] = at >= 0 ? max : std::numeric_limits<T>::quiet_NaN();
    }
  };
  const auto match = [&](const Head<T>& h) {
    taken[h.anchor] = 1, matches[h.anchor] = h.box, ious[h.anchor] = h.value;
  };
  std::vector<Head<T>> heads;
  for (int64_t g = 0; anchors > 0 && g < boxes; ++g) heads.push_back(head(g));
  std::priority_queue<Head<T>> queue(std::less<Head<T>>(), std::move(heads));
  while (!queue.empty() && !(zero_is_least && queue.top().value == T(0))) {
    const Head<T> top = queue.top();
    queue.pop();
    if (!taken[top.anchor]) match(top);
    else if (const Head<T> next = head(top.box); next.anchor >= 0) queue.push(next);
  }
  // What is left is all 0: the boxes in turn take the anchors in turn.
  std::vector<int64_t> rest;
  for (; !queue.empty(); queue.pop()) rest.push_back(queue.top().box);
  std::sort(rest.begin(), rest.end());
  int64_t a = 0;
  for (const int64_t box : rest) {
    while (a < anchors && taken[a]) ++a;
    if (a == anchors) return;
    match({T(0), a, box});
  }
}

template <class T>
void match_by(const MatchInput& input, const GreedyRule<T>& rule, int64_t* matches, T* ious, const Parallel& parallel) {
  const int64_t count = input.anchors.count, chunk = chunk_of(count, input.gt_boxes.count, kTile),
                chunks = blocks_of(count, chunk);
  const std::vector<Shape<T>> boxes = shapes<T>(input.gt_boxes);
  std::vector<T> peaks(boxes.size() * chunks);
  scan<T>(
      input, boxes, chunk, peaks.data(),
      [&](int64_t image, int64_t first, const AnchorTile<T>& anchors, const T* best, const Lane<T>* which) {
        const bool some = rule.has_threshold && input.images.count(image) > 0;
        const int64_t at = image * count + first;
        for (int j = 0; j < anchors.size(); ++j) matches[at + j] = some && best[j] >= rule.threshold ? which[j] : -1;
        std::copy_n(best, anchors.size(), ious + at);
      },
      parallel);
  const double image_ns = mean_boxes(input) * (kAnchorNs * std::min(chunk, count) + kPairNs * chunks);
  parallel.share(input.anchors.batch, image_ns, [&](int64_t begin, int64_t end) {
    AnchorTile<T> anchors;
    alignas(64) T row[kTile];
    for (int64_t image = begin; image < end; ++image) {
      const int64_t from = input.images.begin(image);
      const auto read = [&](int64_t first, int, int64_t box) {
        anchors.load(input.anchors, image, first);
        iou_row(boxes[from + box], anchors, row);
        return row;
      };
      assign<T>(count, input.images.count(image), chunk, peaks.data() + from * chunks, true, read,
                matches + image * count, ious + image * count);
    }
  });
}

template <class T>
void match_by(const MatchMatrix& m, const GreedyRule<T>& rule, int64_t* matches, T* ious, const Parallel& parallel) {
  constexpr T least = -std::numeric_limits<T>::infinity();
  const int64_t chunk = chunk_of(m.anchors, m.batch * m.boxes, 32), chunks = blocks_of(m.anchors, chunk);
  const auto matrix_row = BOXOPS_BY_ISA(matrix_row<T>);
  const bool has_rows = m.dtype == dtype_of<T>() && m.box_stride == 1;  // that can be read where they are
  const auto value = [&](int64_t image, int64_t a, int64_t g) {
    const T v = load<T>(m.data, m.dtype, image * m.batch_stride + a * m.anchor_stride + g * m.box_stride);
    return v == v ? v : least;
  };
  std::vector<T> peaks(m.batch * m.boxes * chunks, least);
  parallel.share(m.batch * chunks, kMatrixPairNs * std::min(chunk, m.anchors) * m.boxes,
                 [&](int64_t begin, int64_t end) {
                   std::vector<T> copy(m.boxes), columns(m.boxes);
                   for (int64_t task = begin; task < end; ++task) {
                     const int64_t image = task / chunks, c = task % chunks;
                     std::fill(columns.begin(), columns.end(), least);
                     for (int64_t a = c * chunk; a < std::min(m.anchors, (c + 1) * chunk); ++a) {
                       const T* row = static_cast<const T*>(m.data) + image * m.batch_stride + a * m.anchor_stride;
                       if (!has_rows) {
                         for (int64_t g = 0; g < m.boxes; ++g) copy[g] = value(image, a, g);
                         row = copy.data();
                       }
                       const T best = matrix_row(row, m.boxes, columns.data());
                       const int64_t at = image * m.anchors + a;
                       matches[at] = -1, ious[at] = m.boxes == 0 ? T(0) : best;
                       if (rule.has_threshold && m.boxes > 0 && best >= rule.threshold)
                         matches[at] = std::find(row, row + m.boxes, best) - row;
                     }
                     for (int64_t g = 0; g < m.boxes; ++g) peaks[(image * m.boxes + g) * chunks + c] = columns[g];
                   }
                 });
  parallel.share(m.batch, kMatrixPairNs * m.boxes * (std::min(chunk, m.anchors) + chunks),
                 [&](int64_t begin, int64_t end) {
                   T column[kTile];
                   for (int64_t image = begin; image < end; ++image) {
                     const auto read = [&](int64_t first, int n, int64_t box) {
                       for (int j = 0; j < n; ++j) column[j] = value(image, first + j, box);
                       return column;
                     };
                     assign<T>(m.anchors, m.boxes, chunk, peaks.data() + image * m.boxes * chunks, false, read,
                               matches + image * m.anchors, ious + image * m.anchors);
                   }
                 });
}

}  // namespace

void match_max_iou(const MatchInput& input, const MaxIouOptions& options, int64_t* matches, void* ious,
                   const Parallel& parallel) {
  with_compute_type(compute_type_of(input, options), [&](auto t) {
    using T = decltype(t);
    match_by(input, MaxIouRule<T>(options), matches, static_cast<T*>(ious), parallel);
  });
}
void match_greedy(const MatchInput& input, const GreedyOptions& options, int64_t* matches, void* ious,
                  const Parallel& parallel) {
  with_compute_type(compute_type_of(input), [&](auto t) {
    using T = decltype(t);
    match_by(input, GreedyRule<T>(options), matches, static_cast<T*>(ious), parallel);
  });
}
void match_greedy_matrix(const MatchMatrix& matrix, const GreedyOptions& options, int64_t* matches, void* ious,
                         const Parallel& parallel) {
  with_compute_type(matrix.dtype, [&](auto t) {
    using T = decltype(t);
    match_by(matrix, GreedyRule<T>(options), matches, static_cast<T*>(ious), parallel);
  });
}

}  // namespace boxops::cpu
