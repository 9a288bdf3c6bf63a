// The kept boxes of one group; included by nms_simd.inl, once per instruction set (common/isa.h).
//
// A list while they are few, in the order in which they were kept:
//
//   shelf 0                           shelf 1
//   x1 x1 .. x1 | y1 .. | .. | area   x1 x1 .. x1 | y1 .. | .. | area   ...
//   \- kLanes -/
//
// A candidate is held against a shelf at a time, in vectors. Lanes not yet taken hold zeros: boxes without area, which
// exceed nothing. From kListed boxes on, shelves are chained by the boxes' size and place (KeptGrid), so that a
// candidate meets only those that could exceed the threshold. Either way every pair that could is tested exactly.
namespace boxops::BOXOPS_ISA {

constexpr int kLanes = 16;
constexpr int64_t kListed = 1024;

template <class T>
struct alignas(64) Shelf {
  T x1[kLanes] = {}, y1[kLanes] = {}, x2[kLanes] = {}, y2[kLanes] = {}, area[kLanes] = {};
};

// A std::vector of them, but for the first few, which lie in the object: an allocation takes as long as a small NMS.
template <class T>
class Shelves {
 public:
  Shelves() { emplace_back(); }
  Shelves(const Shelves&) = delete;
  Shelves& operator=(const Shelves&) = delete;

  int64_t size() const { return size_; }
  const Shelf<T>& operator[](int64_t i) const { return data_[i]; }
  Shelf<T>& operator[](int64_t i) { return data_[i]; }
  void emplace_back() {
    if (!grown_ && size_ < kFew) new (few() + size_) Shelf<T>();
    else grow(0), many_.emplace_back(), data_ = many_.data();
    ++size_;
  }
  // Empty, with room for so many.
  void reset(int64_t room) {
    grow(room);
    many_.clear();
    data_ = many_.data(), size_ = 0;
  }

 private:
  static constexpr int64_t kFew = 2;

  Shelf<T>* few() { return reinterpret_cast<Shelf<T>*>(few_); }
  void grow(int64_t room) {
    many_.reserve(std::max<int64_t>(room, 8));
    if (!grown_) many_.assign(few(), few() + size_);
    grown_ = true;
  }

  alignas(64) unsigned char few_[kFew * sizeof(Shelf<T>)];
  std::vector<Shelf<T>> many_;
  Shelf<T>* data_ = few();
  int64_t size_ = 0;
  bool grown_ = false;  // they are in many_
};

}  // namespace boxops::BOXOPS_ISA

#include "nms/kept_grid.inl"

namespace boxops::BOXOPS_ISA {

template <class R>
class KeptBoxes {
  using T = typename R::Scalar;

 public:
  explicit KeptBoxes(T threshold)
      : threshold_(threshold),
        lower_(threshold * (T(1) - 8 * std::numeric_limits<T>::epsilon())),
        grid_(R::side_ratio(static_cast<double>(threshold)), sizeof(T) == 4 ? 1e-5 : 1e-12) {}

  int64_t count() const { return count_; }

  // The place of a kept box that suppresses this one, or -1. `since`: the first so many boxes need not be looked at.
  int64_t find(const R& box, int64_t since = 0) const {
    int64_t found = -1;
    if (!gridded() || is_tiny(box)) {
      for (int64_t s = gridded() ? 0 : since / kLanes; s < shelves_.size(); ++s)
        if ((found = find_on(s, box)) >= 0) break;
    } else {
      grid_.search(as_double(box), static_cast<double>(box.area), static_cast<double>(threshold_), since,
                   [&](int64_t shelf) { return (found = find_on(shelf, box)) >= 0; });
    }
    return found;
  }

  // Whether the box at this place, where one may lie, suppresses that one.
  bool suppresses(int64_t place, const R& box) const {
    const Shelf<T>& shelf = shelves_[place / kLanes];
    const int lane = static_cast<int>(place % kLanes);
    return may_exceed(shelf, lane, box) && iou<false>(shelf, place, box) > threshold_;
  }

  // Whether one suppresses this box, the measures of which overflow.
  bool any_suppresses_huge(const R& box) const {
    for (int64_t place = 0; place < shelves_.size() * kLanes; ++place) {
      const Shelf<T>& s = shelves_[place / kLanes];
      const int i = static_cast<int>(place % kLanes);
      if (s.area[i] > T(0) && s.x1[i] < box.x2 && box.x1 < s.x2[i] && s.y1[i] < box.y2 && box.y1 < s.y2[i] &&
          iou<true>(s, place, box) > threshold_)
        return true;
    }
    return false;
  }

  // Rises along the rows of the grid: boxes with near numbers meet the same shelves.
  uint32_t neighbourhood(const R& box) const { return gridded() ? grid_.neighbourhood(as_double(box)) : 0; }

  // To be called some boxes ahead of `find`, first for the bucket, then for its shelf.
  void fetch_bucket(const R& box) const {
    if (grid_.room() > kFetched) __builtin_prefetch(grid_.bucket_ahead(as_double(box)));
  }
  void fetch_shelf(const R& box) const {
    if (grid_.room() <= kFetched) return;
    const uint32_t shelf = grid_.shelf_ahead(as_double(box));
    if (shelf == KeptGrid::kNone) return;
    for (size_t at = 0; at < sizeof(Shelf<T>); at += 64)
      __builtin_prefetch(reinterpret_cast<const char*>(&shelves_[shelf]) + at);
  }

  // Keeps an ordinary box; true if the others have changed their places.
  bool insert(const R& box) {
    const bool full = count_ == room();
    if (full) build_grid(2 * count_, count_);
    put(box, count_, count_);
    ++count_;
    if (!R::kCornersAreAll) whole_.push_back(box);
    return full;
  }

  // Readies the places for so many boxes; true if those there have changed theirs.
  bool reserve(int64_t count) {
    if (count <= room()) return false;
    build_grid(std::max(count, 2 * count_), 0);
    return true;
  }

 private:
  static constexpr int64_t kFetched = 1 << 14;  // smaller grids lie in the cache

  bool gridded() const { return grid_.room() > 0; }
  // Areas so small that they have lost precision: then corners do not bound the IoU.
  static bool is_tiny(const R& box) { return box.area < std::numeric_limits<T>::min() * T(1 << 30); }
  static Box<double> as_double(const Box<T>& b) { return {b.x1, b.y1, b.x2, b.y2}; }
  int64_t room() const { return gridded() ? grid_.room() : kListed; }
  static Box<T> corners(const Shelf<T>& s, int64_t i) { return {s.x1[i], s.y1[i], s.x2[i], s.y2[i]}; }

  // Files all anew. `stamp`: boxes are as if the stamp-th had been kept last.
  void build_grid(int64_t room, int64_t stamp) {
    struct Filed {
      R box;  // of a rotated one, what shelves hold
      int64_t owner;
    };
    std::vector<Filed> filed;
    filed.reserve(count_);
    for (int64_t place = 0; place < shelves_.size() * kLanes; ++place) {
      const Shelf<T>& s = shelves_[place / kLanes];
      const int64_t i = place % kLanes;
      if (!(s.area[i] > T(0))) continue;
      Filed& f = filed.emplace_back();
      static_cast<Box<T>&>(f.box) = corners(s, i);
      f.box.area = s.area[i];
      f.owner = R::kCornersAreAll ? 0 : owners_[place];
    }
    grid_.build(count_, room, [&](int64_t i) { return as_double(filed[i].box); });
    // In the order of buckets, so that shelves of neighbouring cells lie side by side.
    std::vector<uint64_t> buckets(count_);
    std::vector<int64_t> order(count_);
    for (int64_t i = 0; i < count_; ++i) buckets[i] = grid_.bucket_of(as_double(filed[i].box));
    cpu::order_of(buckets.data(), count_, order.data());
    shelves_.reset(room / 8), owners_.clear();
    for (const int64_t i : order) put(filed[i].box, filed[i].owner, stamp);
  }

  void put(const R& box, int64_t owner, int64_t stamp) {
    const int64_t place = gridded() ? grid_.file(as_double(box), stamp, is_tiny(box)) : count_;
    if (place / kLanes == shelves_.size()) shelves_.emplace_back();
    Shelf<T>& s = shelves_[place / kLanes];
    const int64_t i = place % kLanes;
    s.x1[i] = box.x1, s.y1[i] = box.y1, s.x2[i] = box.x2, s.y2[i] = box.y2, s.area[i] = box.area;
    if (R::kCornersAreAll) return;
    if (place >= static_cast<int64_t>(owners_.size())) owners_.resize(shelves_.size() * kLanes);
    owners_[place] = owner;
  }

  // `lower_` is a little under the threshold: a product test, which needs no division, finds the few that might exceed.
  bool may_exceed(const Shelf<T>& s, int i, const R& box) const {
    const T w = min_of(box.x2, s.x2[i]) - max_of(box.x1, s.x1[i]),
            h = min_of(box.y2, s.y2[i]) - max_of(box.y1, s.y1[i]);
    return (w > T(0)) & (h > T(0)) & R::may_exceed(w, h, box.area, s.area[i], lower_);
  }

  template <bool guarded>
  T iou(const Shelf<T>& s, int64_t place, const R& box) const {
    if constexpr (R::kCornersAreAll) {
      const int64_t i = place % kLanes;
      return R::template iou<guarded>({corners(s, i), s.area[i]}, box);
    } else {
      return R::template iou<guarded>(whole_[owners_[place]], box);
    }
  }

  int64_t find_on(int64_t shelf, const R& box) const {
    const Shelf<T>& s = shelves_[shelf];
    int maybe = 0;
    for (int i = 0; i < kLanes; ++i) maybe |= may_exceed(s, i, box);
    if (!maybe) return -1;
    if constexpr (R::kCornersAreAll) {
      // In vectors as well: which lane it is cannot be foretold, and a branch would be wrong often.
      using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
      Int lane = kLanes;
      for (Int i = 0; i < kLanes; ++i) {
        const T iou = R::template iou<false>({{s.x1[i], s.y1[i], s.x2[i], s.y2[i]}, s.area[i]}, box);
        const Int here = iou > threshold_ ? i : Int(kLanes);
        lane = here < lane ? here : lane;
      }
      if (lane < kLanes) return shelf * kLanes + lane;
    } else {
      for (int i = 0; i < kLanes; ++i) {
        const int64_t place = shelf * kLanes + i;
        if (may_exceed(s, i, box) && iou<false>(s, place, box) > threshold_) return place;
      }
    }
    return -1;
  }

  T threshold_, lower_;
  int64_t count_ = 0;
  Shelves<T> shelves_;
  KeptGrid grid_;
  std::vector<int64_t> owners_;  // by place: which box of `whole_`, if corners say too little
  std::vector<R> whole_;         // as they were kept
};

}  // namespace boxops::BOXOPS_ISA
