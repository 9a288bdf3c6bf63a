// The greedy pass of nms_cpu.cpp over one group; compiled once per instruction set (common/isa.h).
//
// Kept boxes are filed by their larger side (levels, a factor of two each) and by the cell of their
// centre. If IoU(a, b) > t then, per axis, the ratio of the sides exceeds t and the overlap exceeds
// t times the larger side; so the levels to search are those within the factor t, and the centre
// lies in a window around a's. Ratio and window are widened by a slack far above the rounding
// errors. A bucket is found by hashing level and cell; cells that share a bucket, and whatever else
// a vector reads beyond a bucket's end, cost time but never correctness: every pair is tested exactly.
namespace boxops::BOXOPS_ISA {

constexpr int kLanes = 16;

// The kept boxes, in blocks of kLanes coordinate by coordinate, each bucket in a stretch of its own that has room for
// all its candidates. Places not yet taken hold zeros: boxes without area, which exceed nothing.
template <class R>
class KeptBoxes {
  using T = typename R::Scalar;

 public:
  KeptBoxes(const R* boxes, int64_t n, T threshold)
      : boxes_(boxes), threshold_(threshold), lower_(threshold * (T(1) - 8 * std::numeric_limits<T>::epsilon())) {
    gridded_ = n > 384 && choose_cells(n);
    int64_t buckets = 1;
    if (gridded_)
      while (buckets < n) buckets *= 2;
    mask_ = buckets - 1;
    row_ = static_cast<int64_t>(static_cast<double>(buckets) * 0.6180339887) | 1;
    stretches_.resize(buckets);
    if (gridded_) {
      bucket_.resize(n);
      for (int64_t i = 0; i < n; ++i)
        if (boxes[i].ordinary()) ++stretches_[bucket_[i] = bucket_of(boxes[i])].end;
      int64_t sum = 0;
      for (Stretch& s : stretches_) s.begin = std::exchange(sum, sum + s.end), s.end = s.begin;
    }
    coordinates_.resize((n / kLanes + 1) * 5 * kLanes + kLanes);
    if (!R::kCornersAreAll) owners_.resize(n);
    const auto address = reinterpret_cast<uintptr_t>(coordinates_.data());
    first_ = coordinates_.data() + (kLanes - address / sizeof(T) % kLanes) % kLanes;
  }

  // Whether a kept box suppresses box i.
  bool suppresses(int64_t i) const {
    const R& box = boxes_[i];
    if (!gridded_) return any_exceeds(box, stretches_[0].begin, stretches_[0].end);
    const double w = double(box.x2) - double(box.x1), h = double(box.y2) - double(box.y1), side = std::max(w, h);
    const double cx = middle(box.x1, box.x2), cy = middle(box.y1, box.y2);
    const double most = std::min(side / ratio_ * (1 + kSlack), std::numeric_limits<double>::max());
    const double least = std::max(side * ratio_, std::sqrt(double(box.area) * threshold_));
    const int first = std::max(min_level_, level_of(least * (1 - kSlack)));
    const int last = std::min(max_level_, level_of(most));
    for (int level = first; level <= last; ++level) {
      const Level& grid = levels_[level - min_level_];
      if (grid.kept == 0) continue;
      const double rx = reach(w, grid.side) + std::abs(cx) * 1e-15, ry = reach(h, grid.side) + std::abs(cy) * 1e-15;
      const int64_t x0 = cell(cx - rx, grid), x1 = cell(cx + rx, grid);
      const int64_t y0 = cell(cy - ry, grid), y1 = cell(cy + ry, grid);
      // A window of more cells than there are buckets: all buckets.
      if (double(x1 - x0 + 1) * double(y1 - y0 + 1) > double(mask_)) {
        for (const Stretch& s : stretches_)
          if (any_exceeds(box, s.begin, s.end)) return true;
        return false;
      }
      for (int64_t y = y0; y <= y1; ++y)
        for (int64_t x = x0; x <= x1; ++x) {
          const Stretch& s = stretches_[bucket(x, y, level)];
          if (any_exceeds(box, s.begin, s.end)) return true;
        }
    }
    return false;
  }

  // Files box i as kept.
  void insert(int64_t i) {
    const R& box = boxes_[i];
    if (gridded_) ++levels_[level_of(larger_side(box)) - min_level_].kept;
    const int64_t at = stretches_[gridded_ ? bucket_[i] : 0].end++;
    if (!R::kCornersAreAll) owners_[at] = i;
    T* to = place(at);
    to[0] = box.x1, to[kLanes] = box.y1, to[2 * kLanes] = box.x2, to[3 * kLanes] = box.y2, to[4 * kLanes] = box.area;
  }

  // Boxes come in random places; fetching what a later one needs hides the wait.
  void prefetch(int64_t i) const {
    if (!gridded_) return;
    const T* to = place(stretches_[bucket_[i]].begin);
    for (int k = 0; k < 5; ++k) __builtin_prefetch(to + k * kLanes);
  }

 private:
  static constexpr double kSlack = sizeof(T) == 4 ? 1e-5 : 1e-12;
  static constexpr double kPerCell = 32;

  struct Stretch {
    int64_t begin = 0, end = 0;
  };
  struct Level {
    double side = 0;      // no box of the level has a larger one
    double per_cell = 0;  // cells per unit of length
    int64_t kept = 0;
  };

  T* place(int64_t at) const { return first_ + at / kLanes * (5 * kLanes) + at % kLanes; }

  // Whether the IoU of `box` with any of the places [begin, end) exceeds the threshold. `lower_` is a
  // little under the threshold: a product test, which needs no division, finds the few that might.
  bool any_exceeds(const R& box, int64_t begin, int64_t end) const {
    for (int64_t at = begin / kLanes * kLanes; at < end; at += kLanes) {
      const T* x1 = static_cast<const T*>(__builtin_assume_aligned(place(at), kLanes * sizeof(T)));
      const T *y1 = x1 + kLanes, *x2 = y1 + kLanes, *y2 = x2 + kLanes, *area = y2 + kLanes;
      const auto may_exceed = [&](int i) {
        const T w = min_of(box.x2, x2[i]) - max_of(box.x1, x1[i]), h = min_of(box.y2, y2[i]) - max_of(box.y1, y1[i]);
        return (w > T(0)) & (h > T(0)) & R::may_exceed(w, h, box.area, area[i], lower_);
      };
      int maybe = 0;
      for (int i = 0; i < kLanes; ++i) maybe |= may_exceed(i);
      if (!maybe) continue;
      for (int i = 0; i < kLanes; ++i) {
        if (!may_exceed(i)) continue;
        T iou;
        if constexpr (R::kCornersAreAll) iou = R::template iou<false>({{x1[i], y1[i], x2[i], y2[i]}, area[i]}, box);
        else iou = R::template iou<false>(boxes_[owners_[at + i]], box);
        if (iou > threshold_) return true;
      }
    }
    return false;
  }

  static double larger_side(const R& b) { return std::max(double(b.x2) - double(b.x1), double(b.y2) - double(b.y1)); }
  static int level_of(double side) { return side > 0 ? std::ilogb(side) : std::numeric_limits<int>::min(); }

  static double middle(double lo, double hi) { return 0.5 * lo + 0.5 * hi; }  // their sum could overflow
  // In this order of arguments max turns NaN into a number too.
  static int64_t cell(double x, const Level& grid) {
    return static_cast<int64_t>(std::floor(std::min(std::max(-1e15, x * grid.per_cell), 1e15)));
  }
  int64_t bucket(uint64_t x, uint64_t y, int level) const {  // unsigned: far cells wrap around
    return static_cast<int64_t>((x + y * static_cast<uint64_t>(row_) + level * uint64_t(0x9e3779b9)) & mask_);
  }
  int64_t bucket_of(const R& b) const {
    const int level = level_of(larger_side(b));
    const Level& grid = levels_[level - min_level_];
    return bucket(cell(middle(b.x1, b.x2), grid), cell(middle(b.y1, b.y2), grid), level);
  }

  // How far along one axis the centre of a box with sides up to `largest` can lie from that of a
  // box with side w: the largest (w + v) / 2 - t max(w, v) over v.
  double reach(double w, double largest) const {
    const double v = std::min(largest, w / ratio_);
    const double r = ratio_ >= 0.5 || v <= w ? (w + std::min(v, w)) / 2 - ratio_ * w : w / 2 + v * (0.5 - ratio_);
    return r + (w + v) * kSlack;
  }

  // Sets up levels and cells; false where geometry cannot be trusted to bound the IoU, because
  // areas are so small that they have lost precision.
  bool choose_cells(int64_t n) {
    ratio_ = std::max(R::side_ratio(threshold_) * (1 - kSlack), 1e-30);
    min_level_ = std::numeric_limits<int>::max(), max_level_ = std::numeric_limits<int>::min();
    std::vector<double> xs, ys;
    const int64_t step = std::max<int64_t>(1, n / 256);
    for (int64_t i = 0; i < n; ++i) {
      const R& b = boxes_[i];
      if (!b.ordinary()) continue;
      if (b.area < std::numeric_limits<T>::min() * T(1 << 30)) return false;
      const int level = level_of(larger_side(b));
      min_level_ = std::min(min_level_, level), max_level_ = std::max(max_level_, level);
      if (i % step == 0) xs.push_back(middle(b.x1, b.x2)), ys.push_back(middle(b.y1, b.y2));
    }
    if (xs.size() < 16) return false;
    levels_.resize(max_level_ - min_level_ + 1);
    for (int64_t i = 0; i < n; ++i)
      if (boxes_[i].ordinary()) ++levels_[level_of(larger_side(boxes_[i])) - min_level_].kept;
    // Cells hold about kPerCell boxes where boxes are evenly spread, yet are never far from the size
    // of the level's boxes, so that neither crowds nor outliers spoil the grid.
    std::sort(xs.begin(), xs.end()), std::sort(ys.begin(), ys.end());
    const size_t low = xs.size() / 16, high = xs.size() - 1 - low;
    const double spread = (xs[high] - xs[low]) * (ys[high] - ys[low]);
    for (int level = min_level_; level <= max_level_; ++level) {
      Level& grid = levels_[level - min_level_];
      grid.side = std::min(std::ldexp(1.0, level + 1), std::numeric_limits<double>::max());
      const double spacing = std::sqrt(kPerCell * spread / double(std::max<int64_t>(1, grid.kept)));
      grid.per_cell =
          1 / std::min({std::max(grid.side / 4, spacing), grid.side * 8, std::numeric_limits<double>::max()});
      grid.kept = 0;
    }
    return true;
  }

  const R* boxes_;
  T threshold_, lower_;
  bool gridded_;
  double ratio_ = 0;
  int min_level_ = 0, max_level_ = 0;
  std::vector<Level> levels_;
  int64_t mask_, row_;
  std::vector<Stretch> stretches_;  // by bucket
  std::vector<int64_t> bucket_;     // by candidate
  std::vector<int64_t> owners_;     // by place: which candidate lies there, if corners say too little
  std::vector<T> coordinates_;      // by kLanes: that many x1, y1, x2, y2 and areas
  T* first_;                        // aligned for vectors
};

// boxes[n] by falling score; sets keep[i]; stops after `limit` kept boxes. `guarded`: some are huge; those meet all
// others one by one, and the kept ones of them are a list of their own.
template <class R, bool guarded>
void greedy(const R* boxes, int64_t n, typename R::Scalar threshold, int64_t limit, bool* keep) {
  constexpr int64_t kAhead = 8;
  KeptBoxes<R> kept(boxes, n, threshold);
  std::vector<int64_t> huge;
  int64_t count = 0;
  for (int64_t i = 0; i < n && count < limit; ++i) {
    if (i + kAhead < n) kept.prefetch(i + kAhead);
    keep[i] = !boxes[i].ordinary() || !kept.suppresses(i);
    if (guarded) {
      const auto suppressed_by = [&](int64_t j) {
        const R &a = boxes[j], &b = boxes[i];
        return a.x1 < b.x2 && b.x1 < a.x2 && a.y1 < b.y2 && b.y1 < a.y2 && R::template iou<true>(a, b) > threshold;
      };
      keep[i] = keep[i] && std::none_of(huge.begin(), huge.end(), suppressed_by);
      for (int64_t j = 0; boxes[i].huge() && keep[i] && j < i; ++j)
        keep[i] = !(keep[j] && boxes[j].ordinary() && suppressed_by(j));
      if (keep[i] && boxes[i].huge()) huge.push_back(i);
    }
    if (keep[i] && boxes[i].ordinary()) kept.insert(i);
    count += keep[i];
  }
}

}  // namespace boxops::BOXOPS_ISA
