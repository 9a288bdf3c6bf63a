// Boxes by place, in shelves one after another; included by nms_simd.inl, once per instruction set (common/isa.h).
//
//   cells   | 0 | 1 | 2 |  ...          Cells number the plane along x, then along y; those of a window are a range in
//   first_    0   3   3   7             each of its rows, and so are their boxes.
//   boxes_    . . .   . . . .  . ...
#include "nms/kept_boxes.inl"

namespace boxops::BOXOPS_ISA {

template <class R>
class CellList {
  using T = typename R::Scalar;

 public:
  void clear() {
    shelves_.clear(), boxes_.clear();
    first_.assign(kRows * kColumns + 1, 0);
    has_odd_ = false;
  }
  // In the order of their places.
  void add(const R& box, uint32_t place) {
    const int64_t i = size();
    if (i % kLanes == 0) shelves_.emplace_back();
    shelves_.back().set(i % kLanes, box);
    boxes_.push_back(box);
    ++first_[place / kPerCell + 1];
    has_odd_ |= box.ordinary() ? box.tiny() : box.huge();
  }
  void close() {
    for (uint32_t cell = 0; cell < kRows * kColumns; ++cell) first_[cell + 1] += first_[cell];
  }

  int64_t size() const { return static_cast<int64_t>(boxes_.size()); }
  const R& operator[](int64_t i) const { return boxes_[i]; }
  // Whether some are such that their corners do not say what they overlap.
  bool has_odd() const { return has_odd_; }

  // Of boxes that are not odd: whether none of the others can suppress box i or be suppressed by it. No for an answer
  // where the search is long.
  bool is_alone(int64_t i, const KeptBoxes<R>& kept) const {
    constexpr int64_t kMost = 512;
    const R& box = boxes_[i];
    if (!box.ordinary()) return true;
    const KeptGrid::Window window = kept.window_of(box);
    int64_t looked = 0;
    for (uint32_t y = window.y0; y <= window.y1; ++y) {
      const uint32_t row = y * kColumns;
      const int64_t first = first_[row + window.x0 / kPerCell], last = first_[row + window.x1 / kPerCell + 1];
      if ((looked += last - first) > kMost) return false;
      for (int64_t s = first / kLanes; s * kLanes < last; ++s)
        if (kept.may_exceed_on(shelves_[s], i - s * kLanes, box)) return false;
    }
    return true;
  }

 private:
  static constexpr uint32_t kRows = KeptGrid::kRows, kColumns = 64, kPerCell = KeptGrid::kColumns / kColumns;

  std::vector<Shelf<T>> shelves_;
  std::vector<R> boxes_;
  std::vector<int64_t> first_;  // of each cell, the first box; and the end
  bool has_odd_ = false;
};

}  // namespace boxops::BOXOPS_ISA
