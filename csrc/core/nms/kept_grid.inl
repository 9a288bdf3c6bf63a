// Where kept boxes lie, once they are many; included by kept_boxes.inl, once per instruction set (common/isa.h).
//
// Boxes are filed by their larger side (levels, a factor of two each) and by the cell of their centre; a level's cells
// are as large as suits its boxes. Level and cell hash to a bucket, and a bucket is a chain of shelves
// (kept_boxes.inl):
//
//   bucket  0    1    2    3    4  ...
//           |         |
//           v         v                      the newest shelf comes first; only it has places left
//         shelf 9   shelf 4
//           |
//           v
//         shelf 2
//
// If IoU(a, b) > t then, per axis, the ratio of the sides exceeds t and the overlap exceeds t times the larger side; so
// the levels to search are those within the factor t, and the centre lies in a window around a's. Ratio and window are
// widened by a slack far above the rounding errors. Cells that share a bucket cost time but never correctness.
namespace boxops::BOXOPS_ISA {

class KeptGrid {
 public:
  static constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

  // `side_ratio`: an IoU above the threshold needs sides that differ by no more. `slack`: above the rounding errors.
  KeptGrid(double side_ratio, double slack) : ratio_(std::max(side_ratio * (1 - slack), 1e-30)), slack_(slack) {}

  // How many boxes it is made for; 0: not built.
  int64_t room() const { return room_; }

  // Forgets all, and makes buckets for `room` boxes that are spread as these `count` ones; box(i): their corners.
  template <class BoxAt>
  void build(int64_t count, int64_t room, BoxAt box) {
    room_ = room;
    links_.clear(), levels_.clear();
    std::vector<double> xs, ys;
    const int64_t step = std::max<int64_t>(1, count / 256);
    for (int64_t i = 0; i < count; ++i) {
      const Box<double> b = box(i);
      level_at(level_of(larger_side(b))).boxes += static_cast<double>(room) / static_cast<double>(count);
      if (i % step == 0) xs.push_back(middle(b.x1, b.x2)), ys.push_back(middle(b.y1, b.y2));
    }
    std::sort(xs.begin(), xs.end()), std::sort(ys.begin(), ys.end());
    const size_t low = xs.size() / 16, high = xs.size() - 1 - low;
    left_ = xs[low], top_ = ys[low], width_ = xs[high] - xs[low], height_ = ys[high] - ys[low];
    for (size_t i = 0; i < levels_.size(); ++i) choose_cells(levels_[i], least_level_ + static_cast<int>(i));
    int64_t buckets = 16;
    while (buckets < room / 2) buckets *= 2;
    mask_ = static_cast<uint64_t>(buckets) - 1;
    row_ = static_cast<uint64_t>(static_cast<double>(buckets) * 0.6180339887) | 1;
    buckets_.assign(buckets + 1, kNone);
  }

  // The place for a box: shelf * kLanes + lane; a new shelf is the one after the last. `anywhere`: its corners do not
  // say what it overlaps, so every search looks at it.
  int64_t file(const Box<double>& box, bool anywhere) {
    size_t at = mask_ + 1;
    if (!anywhere) {
      Level& grid = level_at(level_of(larger_side(box)));
      grid.boxes = std::max(grid.boxes, 1.0);
      at = bucket_of(box, grid);
    }
    uint32_t& head = buckets_[at];
    if (head == kNone || links_[head].filled == kLanes) {
      links_.push_back({head, 0});
      head = static_cast<uint32_t>(links_.size() - 1);
    }
    return static_cast<int64_t>(head) * kLanes + links_[head].filled++;
  }

  // Where a box would go: neighbours in the order of buckets lie near each other.
  uint64_t bucket_of(const Box<double>& box) const {
    const int at = level_of(larger_side(box)) - least_level_;
    return at >= 0 && at < static_cast<int>(levels_.size()) ? bucket_of(box, levels_[at]) : mask_ + 1;
  }

  // Its bucket, to be fetched, and the newest shelf of that: boxes come in random places, and this hides the wait.
  const void* bucket_ahead(const Box<double>& box) const { return &buckets_[bucket_of(box)]; }
  uint32_t shelf_ahead(const Box<double>& box) const { return buckets_[bucket_of(box)]; }

  // Calls look(shelf) for the shelves with boxes that might have an IoU above the threshold with this one, until it
  // returns true.
  template <class Look>
  bool search(const Box<double>& box, double area, double threshold, Look look) const {
    const auto meets = [&](uint32_t head) __attribute__((always_inline)) {
      for (uint32_t shelf = head; shelf != kNone; shelf = links_[shelf].next)
        if (look(shelf)) return true;
      return false;
    };
    if (meets(buckets_[mask_ + 1])) return true;
    const double w = box.x2 - box.x1, h = box.y2 - box.y1, side = std::max(w, h);
    const double cx = middle(box.x1, box.x2), cy = middle(box.y1, box.y2);
    const double max_side = std::min(side / ratio_ * (1 + slack_), std::numeric_limits<double>::max());
    const double min_side = std::max(side * ratio_, std::sqrt(area * threshold));
    const int first = std::max(least_level_, level_of(min_side * (1 - slack_)));
    int last = std::min(least_level_ + static_cast<int>(levels_.size()) - 1, level_of(max_side));
    for (int level = first; level <= last; ++level) {
      const Level& grid = levels_[level - least_level_];
      if (grid.boxes == 0) continue;
      const double rx = reach(cx, w, grid.side), ry = reach(cy, h, grid.side);
      int64_t x0 = cell(cx - rx, grid), x1 = cell(cx + rx, grid), y0 = cell(cy - ry, grid), y1 = cell(cy + ry, grid);
      if (double(x1 - x0 + 1) * double(y1 - y0 + 1) > double(mask_))  // more cells than there are buckets: all buckets
        x1 = x0 + static_cast<int64_t>(mask_), y1 = y0, last = level;
      for (int64_t y = y0; y <= y1; ++y)
        for (int64_t x = x0; x <= x1; ++x)
          if (meets(buckets_[bucket(x, y, level)])) return true;
    }
    return false;
  }

  // Of kRows x kColumns pieces of the plane, which one the centre lies in: rising along x, then y.
  static constexpr uint32_t kRows = 64, kColumns = 1 << 12;
  uint32_t place_of(const Box<double>& box) const {
    return row_of(middle(box.y1, box.y2)) * kColumns + column_of(middle(box.x1, box.x2));
  }

  // The rows and columns where the centres of those lie that might have an IoU above the threshold with this box.
  struct Window {
    uint32_t x0, x1, y0, y1;
  };
  Window window_of(const Box<double>& box) const {
    constexpr double any = std::numeric_limits<double>::max();
    const double cx = middle(box.x1, box.x2), cy = middle(box.y1, box.y2);
    const double rx = reach(cx, box.x2 - box.x1, any), ry = reach(cy, box.y2 - box.y1, any);
    return {column_of(cx - rx), column_of(cx + rx), row_of(cy - ry), row_of(cy + ry)};
  }

 private:
  static constexpr double kPerCell = 16;

  struct Level {
    double side = 0;      // no box of the level has a larger one
    double per_cell = 0;  // cells per unit of length
    double boxes = 0;     // that are expected
  };
  struct Link {
    uint32_t next, filled;
  };

  static double larger_side(const Box<double>& b) { return std::max(b.x2 - b.x1, b.y2 - b.y1); }
  // The exponent of a side >= 0, without the call that std::ilogb is.
  static int level_of(double side) { return static_cast<int>(detail::bits_as<uint64_t>(side) >> 52 & 2047) - 1023; }
  static double middle(double lo, double hi) { return 0.5 * lo + 0.5 * hi; }  // their sum could overflow
  // In this order of arguments max turns NaN into a number too.
  BOXOPS_HD static int64_t cell(double x, const Level& grid) {
    return static_cast<int64_t>(std::floor(std::min(std::max(-1e15, x * grid.per_cell), 1e15)));
  }
  uint32_t row_of(double y) const { return piece_of(y, top_, height_, kRows); }
  uint32_t column_of(double x) const { return piece_of(x, left_, width_, kColumns); }
  // In this order of arguments max turns NaN into a number too.
  static uint32_t piece_of(double x, double from, double length, uint32_t pieces) {
    return static_cast<uint32_t>(std::min(std::max(0.0, pieces * (0.1 + 0.8 * (x - from) / length)), pieces - 1.0));
  }
  uint64_t bucket(uint64_t x, uint64_t y, int level) const {  // unsigned: far cells wrap around
    return (x + y * row_ + level * uint64_t(0x9e3779b9)) & mask_;
  }

  uint64_t bucket_of(const Box<double>& box, const Level& grid) const {
    const int level = least_level_ + static_cast<int>(&grid - levels_.data());
    return bucket(cell(middle(box.x1, box.x2), grid), cell(middle(box.y1, box.y2), grid), level);
  }

  // How far along one axis the centre of a box with sides up to `largest` can lie from the one at c of a
  // box with side w: the largest (w + v) / 2 - t max(w, v) over v.
  BOXOPS_HD double reach(double c, double w, double largest) const {
    const double v = std::min(largest, w / ratio_);
    const double r = ratio_ >= 0.5 || v <= w ? (w + std::min(v, w)) / 2 - ratio_ * w : w / 2 + v * (0.5 - ratio_);
    return r + (w + v) * slack_ + std::abs(c) * 1e-15;
  }

  // Levels are there from the least to the largest that a box has had.
  Level& level_at(int level) {
    if (levels_.empty()) least_level_ = level;
    while (level < least_level_) levels_.insert(levels_.begin(), made(--least_level_));
    while (level >= least_level_ + static_cast<int>(levels_.size()))
      levels_.push_back(made(least_level_ + static_cast<int>(levels_.size())));
    return levels_[level - least_level_];
  }
  Level made(int level) const {
    Level grid;
    choose_cells(grid, level);
    return grid;
  }
  // Cells hold about kPerCell boxes where boxes are evenly spread, yet are never far from the size of the level's
  // boxes, so that neither crowds nor outliers spoil the grid.
  void choose_cells(Level& grid, int level) const {
    constexpr double max = std::numeric_limits<double>::max();
    grid.side = std::min(std::ldexp(1.0, level + 1), max);
    const double spacing = std::sqrt(kPerCell * width_ * height_ / std::max(1.0, grid.boxes));
    grid.per_cell = 1 / std::min({std::max(grid.side / 4, spacing), grid.side * 8, max});
  }

  double ratio_, slack_;
  double left_ = 0, top_ = 0, width_ = 0, height_ = 0;  // of where most centres lie
  int64_t room_ = 0;
  int least_level_ = 0;
  std::vector<Level> levels_;
  uint64_t mask_ = 0, row_ = 1;
  std::vector<uint32_t> buckets_;  // their newest shelves; the last holds what may lie anywhere
  std::vector<Link> links_;        // by shelf
};

}  // namespace boxops::BOXOPS_ISA
