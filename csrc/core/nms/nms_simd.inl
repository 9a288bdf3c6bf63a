// The greedy pass of nms_cpu.cpp over one group; compiled once per instruction set (common/isa.h).
//
// Kept boxes are filed by the larger side (levels, a factor of two each) and by the cell of their
// centre, 16 to a block so that one vector compares a box with a block. If IoU(a, b) > t then, per
// axis, the ratio of the sides exceeds t and the overlap exceeds t times the larger side; so the
// levels to search are those within the factor t, and the centre lies in a window around a's. The
// window is widened by a slack far above the rounding errors. A bucket is found by hashing level
// and cell; cells that share a bucket cost time, never correctness, since every pair found is
// tested exactly.
namespace boxops::BOXOPS_ISA {

template <class T>
struct Block {
  static constexpr int kSize = 16;
  alignas(64) T x1[kSize];
  alignas(64) T y1[kSize];
  alignas(64) T x2[kSize];
  alignas(64) T y2[kSize];
  alignas(64) T area[kSize];
};

// Whether the IoU of `box` with any box of the block exceeds the threshold. `lower` is a little
// under the threshold: the product test that needs no division finds the few that might.
template <class T>
inline bool any_exceeds(const Ranked<T>& box, const Block<T>& block, T threshold, T lower) {
  int maybe = 0;
  for (int i = 0; i < Block<T>::kSize; ++i) {
    const T inter = extent(max_of(box.x1, block.x1[i]), min_of(box.x2, block.x2[i])) *
                    extent(max_of(box.y1, block.y1[i]), min_of(box.y2, block.y2[i]));
    const T uni = (box.area + block.area[i]) - inter;
    maybe |= (inter > T(0)) & (inter >= lower * uni);
  }
  if (!maybe) return false;
  for (int i = 0; i < Block<T>::kSize; ++i) {
    Shape<T> a{{box.x1, box.y1, box.x2, box.y2}, box.area, T(0)};
    Shape<T> b{{block.x1[i], block.y1[i], block.x2[i], block.y2[i]}, block.area[i], T(0)};
    if (iou_of(a, b) > threshold) return true;
  }
  return false;
}

template <class T>
class KeptBoxes {
 public:
  KeptBoxes(const Ranked<T>* boxes, int64_t n, T threshold)
      : threshold_(threshold), lower_(threshold * (T(1) - 8 * std::numeric_limits<T>::epsilon())) {
    gridded_ = n > 256 && choose_cells(boxes, n);
    int64_t buckets = 1;
    if (gridded_)
      while (buckets < n) buckets *= 2;
    head_.assign(buckets, -1);
    mask_ = buckets - 1;
    row_ = static_cast<int64_t>(static_cast<double>(buckets) * 0.6180339887) | 1;
  }

  bool suppress(const Ranked<T>& box) const {
    if (!gridded_) return chain_exceeds(box, head_[0]);
    const double w = double(box.x2) - double(box.x1), h = double(box.y2) - double(box.y1), side = std::max(w, h);
    const double cx = (double(box.x1) + double(box.x2)) / 2, cy = (double(box.y1) + double(box.y2)) / 2;
    const int first = std::max(min_level_, level_of(side * ratio_ * (1 - kSlack)));
    const int last =
        std::min(max_level_, level_of(std::min(side / ratio_ * (1 + kSlack), std::numeric_limits<double>::max())));
    for (int level = first; level <= last; ++level) {
      const Level& grid = levels_[level - min_level_];
      if (grid.kept == 0) continue;
      const double rx = reach(w, grid.side) + std::abs(cx) * 1e-15, ry = reach(h, grid.side) + std::abs(cy) * 1e-15;
      const int64_t x0 = cell(cx - rx, grid), x1 = cell(cx + rx, grid), y0 = cell(cy - ry, grid),
                    y1 = cell(cy + ry, grid);
      if (double(x1 - x0 + 1) * double(y1 - y0 + 1) > double(blocks_.size())) return any_block_exceeds(box);
      for (int64_t y = y0; y <= y1; ++y)
        for (int64_t x = x0; x <= x1; ++x)
          if (chain_exceeds(box, head_[bucket(x, y, level)])) return true;
    }
    return false;
  }

  void insert(const Ranked<T>& box) {
    int64_t at = 0;
    if (gridded_) {
      const int level = level_of(larger_side(box));
      Level& grid = levels_[level - min_level_];
      ++grid.kept;
      at = bucket(cell((double(box.x1) + double(box.x2)) / 2, grid), cell((double(box.y1) + double(box.y2)) / 2, grid),
                  level);
    }
    if (head_[at] < 0 || fill_[head_[at]] == Block<T>::kSize) {
      blocks_.emplace_back();  // zeros: boxes of area 0, which exceed nothing
      fill_.push_back(0);
      next_.push_back(head_[at]);
      head_[at] = static_cast<int64_t>(blocks_.size()) - 1;
    }
    Block<T>& block = blocks_[head_[at]];
    const int i = fill_[head_[at]]++;
    block.x1[i] = box.x1, block.y1[i] = box.y1, block.x2[i] = box.x2, block.y2[i] = box.y2, block.area[i] = box.area;
  }

 private:
  static constexpr double kSlack = sizeof(T) == 4 ? 1e-5 : 1e-12;

  static constexpr double kPerCell = 16;

  struct Level {
    double side = 0;      // no box of the level has a larger one
    double per_cell = 0;  // cells per unit of length
    int64_t kept = 0;
  };

  static double larger_side(const Ranked<T>& b) {
    return std::max(double(b.x2) - double(b.x1), double(b.y2) - double(b.y1));
  }
  static int level_of(double side) { return side > 0 ? std::ilogb(side) : std::numeric_limits<int>::min(); }

  static int64_t cell(double x, const Level& grid) {
    return static_cast<int64_t>(std::floor(std::min(std::max(x * grid.per_cell, -1e15), 1e15)));
  }

  int64_t bucket(int64_t x, int64_t y, int level) const { return (x + y * row_ + level * 0x9e3779b9ll) & mask_; }

  // How far along one axis the centre of a box with sides up to `largest` can lie from that of a
  // box with side w: the largest (w + v) / 2 - t max(w, v) over v.
  double reach(double w, double largest) const {
    const double v = std::min(largest, w / ratio_);
    const double r = ratio_ >= 0.5 || v <= w ? (w + std::min(v, w)) / 2 - ratio_ * w : w / 2 + v * (0.5 - ratio_);
    return r + (w + v) * kSlack;
  }

  // Sets up levels and cells; false where geometry cannot be trusted to bound the IoU, because
  // areas are so small that they have lost precision.
  bool choose_cells(const Ranked<T>* boxes, int64_t n) {
    ratio_ = std::max(double(threshold_) * (1 - kSlack), 1e-30);
    min_level_ = std::numeric_limits<int>::max(), max_level_ = std::numeric_limits<int>::min();
    std::vector<double> xs, ys;
    const int64_t step = std::max<int64_t>(1, n / 256);
    for (int64_t i = 0; i < n; ++i) {
      const Ranked<T>& b = boxes[i];
      if (!b.ordinary()) continue;
      if (b.area < std::numeric_limits<T>::min() * T(1 << 30)) return false;
      const int level = level_of(larger_side(b));
      min_level_ = std::min(min_level_, level), max_level_ = std::max(max_level_, level);
      if (i % step == 0)
        xs.push_back((double(b.x1) + double(b.x2)) / 2), ys.push_back((double(b.y1) + double(b.y2)) / 2);
    }
    if (xs.size() < 16) return false;
    levels_.resize(max_level_ - min_level_ + 1);
    for (int64_t i = 0; i < n; ++i)
      if (boxes[i].ordinary()) ++levels_[level_of(larger_side(boxes[i])) - min_level_].kept;
    // Cells hold about 16 boxes where boxes are evenly spread, yet are never far from the size of
    // the level's boxes, so that neither crowds nor outliers spoil the grid.
    std::sort(xs.begin(), xs.end()), std::sort(ys.begin(), ys.end());
    const size_t low = xs.size() / 16, high = xs.size() - 1 - low;
    const double extent = (xs[high] - xs[low]) * (ys[high] - ys[low]);
    for (int level = min_level_; level <= max_level_; ++level) {
      Level& grid = levels_[level - min_level_];
      grid.side = std::ldexp(1.0, level + 1);
      const double spacing = std::sqrt(kPerCell * extent / double(std::max<int64_t>(1, grid.kept)));
      grid.per_cell = 1 / std::min(std::max(spacing, grid.side / 4), grid.side * 8);
      grid.kept = 0;
    }
    return true;
  }

  bool chain_exceeds(const Ranked<T>& box, int64_t at) const {
    for (; at >= 0; at = next_[at])
      if (any_exceeds(box, blocks_[at], threshold_, lower_)) return true;
    return false;
  }

  bool any_block_exceeds(const Ranked<T>& box) const {
    for (const Block<T>& block : blocks_)
      if (any_exceeds(box, block, threshold_, lower_)) return true;
    return false;
  }

  T threshold_, lower_;
  bool gridded_;
  double ratio_ = 0;
  int min_level_ = 0, max_level_ = 0;
  std::vector<Level> levels_;
  int64_t mask_, row_;
  std::vector<int64_t> head_, next_;
  std::vector<int> fill_;
  std::vector<Block<T>> blocks_;
};

// boxes[n] by falling score; sets keep[i]; stops after `limit` kept boxes.
template <class T>
void greedy(const Ranked<T>* boxes, int64_t n, T threshold, int64_t limit, bool* keep) {
  KeptBoxes<T> kept(boxes, n, threshold);
  int64_t count = 0;
  for (int64_t i = 0; i < n && count < limit; ++i) {
    keep[i] = !boxes[i].ordinary() || !kept.suppress(boxes[i]);
    if (keep[i] && boxes[i].ordinary()) kept.insert(boxes[i]);
    count += keep[i];
  }
}

}  // namespace boxops::BOXOPS_ISA
