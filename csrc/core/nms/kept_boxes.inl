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

  template <class R>
  void set(int64_t i, const R& box) {
    x1[i] = box.x1, y1[i] = box.y1, x2[i] = box.x2, y2[i] = box.y2, area[i] = box.area;
  }
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
  // `expected`: so many may come; a grid is made for them at once.
  explicit KeptBoxes(T threshold, int64_t expected = 0)
      : threshold_(threshold),
        expected_(expected),
        lower_(threshold * (T(1) - 8 * std::numeric_limits<T>::epsilon())),
        grid_(R::side_ratio(static_cast<double>(threshold)), sizeof(T) == 4 ? 1e-5 : 1e-12) {}

  // The place of a kept box that suppresses this one, or -1. Inline, as it is the inner loop: else 6 % slower.
  __attribute__((always_inline)) int64_t find(const R& box) const {
    int64_t found = -1;
    if (!gridded() || box.tiny()) {
      for (int64_t s = 0; s < shelves_.size(); ++s)
        if ((found = find_on(s, box)) >= 0) break;
    } else {
      grid_.search(as_double(box), static_cast<double>(box.area), static_cast<double>(threshold_),
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

  // How the grid divides the plane; boxes of near places meet the same shelves.
  bool gridded() const { return grid_.room() > 0; }
  uint32_t place_of(const R& box) const { return gridded() ? grid_.place_of(as_double(box)) : 0; }
  KeptGrid::Window window_of(const R& box) const { return grid_.window_of(as_double(box)); }

  // Whether one of the shelf's boxes, but for that of lane `self`, might exceed the threshold.
  bool may_exceed_on(const Shelf<T>& s, int64_t self, const R& box) const {
    int maybe = 0;
    for (int i = 0; i < kLanes; ++i) maybe |= may_exceed(s, i, box) & (i != self);
    return maybe;
  }

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
    if (full) build_grid(filed(), std::max(2 * count_, expected_));
    put(box, static_cast<int64_t>(whole_.size()));
    if (!R::kCornersAreAll) whole_.push_back(box);
    return full;
  }

  // Keeps these ordinary boxes, mostly in the order of their places. The others may change theirs.
  void insert(const std::vector<R>& boxes) {
    const auto n = static_cast<int64_t>(boxes.size());
    const auto owner = static_cast<int64_t>(whole_.size());
    if (!R::kCornersAreAll) whole_.insert(whole_.end(), boxes.begin(), boxes.end());
    if (count_ + n > room()) {
      std::vector<Filed> all = filed();
      for (int64_t i = 0; i < n; ++i) all.push_back({boxes[i], owner + i});
      return build_grid(all, std::max(count_ + n, 2 * count_));
    }
    for (int64_t i = 0; i < n; ++i) {
      if (i + 16 < n) fetch_bucket(boxes[i + 16]);
      if (i + 8 < n) fetch_shelf(boxes[i + 8]);
      put(boxes[i], owner + i);
    }
  }

 private:
  static constexpr int64_t kFetched = 1 << 14;  // smaller grids lie in the cache

  static Box<double> as_double(const Box<T>& b) { return {b.x1, b.y1, b.x2, b.y2}; }
  int64_t room() const { return gridded() ? grid_.room() : kListed; }
  static Box<T> corners(const Shelf<T>& s, int64_t i) { return {s.x1[i], s.y1[i], s.x2[i], s.y2[i]}; }

  struct Filed {
    R box;  // of a rotated one, what shelves hold
    int64_t owner;
  };
  std::vector<Filed> filed() const {
    std::vector<Filed> boxes;
    boxes.reserve(count_);
    for (int64_t place = 0; place < shelves_.size() * kLanes; ++place) {
      const Shelf<T>& s = shelves_[place / kLanes];
      const int64_t i = place % kLanes;
      if (!(s.area[i] > T(0))) continue;
      Filed& f = boxes.emplace_back();
      static_cast<Box<T>&>(f.box) = corners(s, i);
      f.box.area = s.area[i];
      f.owner = R::kCornersAreAll ? 0 : owners_[place];
    }
    return boxes;
  }

  // Makes it for `room` boxes, and files these.
  void build_grid(const std::vector<Filed>& boxes, int64_t room) {
    grid_.build(static_cast<int64_t>(boxes.size()), room, [&](int64_t i) { return as_double(boxes[i].box); });
    shelves_.reset(room / 8), owners_.clear();
    count_ = 0;
    put(boxes);
  }

  // In the order of buckets, so that shelves of neighbouring cells lie side by side.
  void put(const std::vector<Filed>& boxes) {
    const auto n = static_cast<int64_t>(boxes.size());
    std::vector<uint64_t> buckets(n);
    std::vector<int64_t> order(n);
    for (int64_t i = 0; i < n; ++i) buckets[i] = grid_.bucket_of(as_double(boxes[i].box));
    cpu::order_of(buckets.data(), n, order.data());
    for (int64_t i = 0; i < n; ++i) {
      if (i + 16 < n) fetch_bucket(boxes[order[i + 16]].box);
      if (i + 8 < n) fetch_shelf(boxes[order[i + 8]].box);
      put(boxes[order[i]].box, boxes[order[i]].owner);
    }
  }

  void put(const R& box, int64_t owner) {
    const int64_t place = gridded() ? grid_.file(as_double(box), box.tiny()) : count_;
    ++count_;
    if (place / kLanes == shelves_.size()) shelves_.emplace_back();
    shelves_[place / kLanes].set(place % kLanes, box);
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

  T threshold_;
  int64_t expected_;
  T lower_;
  int64_t count_ = 0;
  Shelves<T> shelves_;
  KeptGrid grid_;
  std::vector<int64_t> owners_;  // by place: which box of `whole_`, if corners say too little
  std::vector<R> whole_;         // as they were kept
};

}  // namespace boxops::BOXOPS_ISA
