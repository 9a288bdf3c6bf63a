// The greedy pass of nms_cpu.cpp over one group; compiled once per instruction set (common/isa.h).
//
// Candidates come in blocks. Most of a detector's boxes gather around its objects, and are suppressed by the box that
// suppressed their neighbour: a table of hints says which one that was, by size and place. What a hint does not settle
// is looked up among the kept boxes.
//
// Where candidates are very many, a stretch of them at a time is first sifted: held against the boxes kept so far, by
// all threads and by place, so that memory is met in order. Those left are taken in turn and look at each other only;
// the ones kept then join the rest, by place again.
#include "nms/kept_boxes.inl"

namespace boxops::BOXOPS_ISA {

// By the size and place of boxes, who has suppressed one like it.
template <class R>
class Hints {
 public:
  static constexpr int kBlock = Candidates<R>::kBlock;

  void forget() { std::fill_n(places_, kHints, 0); }
  void learn(uint32_t cell, int64_t place) { places_[cell] = static_cast<uint32_t>(place <= kMaxPlace ? place : 0); }

  // A hash of the box's size, to a factor of two, and of its centre's cell, about a quarter as large. How this rounds
  // does not matter.
  static void find_cells(const Candidates<R>& block, uint32_t* cells) {
    for (int i = 0; i < kBlock; ++i) {
      const float size = static_cast<float>((block.x2[i] - block.x1[i]) + (block.y2[i] - block.y1[i]));
      const uint32_t exponent = min_of(detail::bits_as<uint32_t>(size) >> 23 & 255u, 253u);
      const float per_cell = detail::bits_as<float>((254u - exponent) << 23);
      const float x = static_cast<float>(block.x1[i] + block.x2[i]) * per_cell;
      const float y = static_cast<float>(block.y1[i] + block.y2[i]) * per_cell;
      const auto column = static_cast<uint32_t>(static_cast<int32_t>(min_of(max_of(x, -1e9f), 1e9f)));
      const auto row = static_cast<uint32_t>(static_cast<int32_t>(min_of(max_of(y, -1e9f), 1e9f)));
      cells[i] = (column * 0x9e3779b1u + row * 0x85ebca77u + exponent * 0xc2b2ae3du) >> (32 - kHintBits);
    }
  }

  // Writes which candidates are not suppressed by the box that their hint names; returns how many.
  __attribute__((always_inline)) int left_by(const KeptBoxes<R>& kept, const Candidates<R>& block,
                                             const uint32_t* cells, uint8_t* open) const {
    int left = 0;
    for (int i = 0; i < block.count; ++i) {
      open[left] = static_cast<uint8_t>(i);
      const R box = block[i];
      left += !(box.ordinary() && kept.suppresses(places_[cells[i]], box));
    }
    return left;
  }

 private:
  static constexpr int kHintBits = 10, kHints = 1 << kHintBits;
  static constexpr int64_t kMaxPlace = std::numeric_limits<uint32_t>::max();

  uint32_t places_[kHints];  // among the kept; 0, where none is known, is that of the first
};

template <class R>
class Greedy {
  using T = typename R::Scalar;

 public:
  Greedy(const RankedBoxes<R>& boxes, int64_t n, T threshold, int64_t limit, bool* keep)
      : boxes_(boxes), n_(n), threshold_(threshold), limit_(limit), keep_(keep), kept_(threshold) {}

  void run(const Parallel& parallel) {
    constexpr int64_t kFirst = 1 << 14, kStretch = 1 << 15, kVeryMany = 1 << 19;
    int64_t done = n_ < kVeryMany ? n_ : kFirst;
    take(boxes_, 0, done, kept_, [](int64_t i) { return i; });
    while (done < n_ && count_ < limit_) {
      const int64_t m = std::min(n_ - done, std::max(kStretch, done / 24));
      std::vector<uint8_t> open(m);
      parallel.share(m, R::kBoxNs, [&](int64_t begin, int64_t end) { sift(done + begin, end - begin, &open[begin]); });
      std::vector<int64_t> left, order;
      for (int64_t i = 0; i < m; ++i)
        if (open[i]) left.push_back(done + i), order.push_back(boxes_.order[done + i]);
      const RankedBoxes<R> those{boxes_.boxes, boxes_.batch, order.data()};
      const auto count = static_cast<int64_t>(left.size());
      KeptBoxes<R> kept(threshold_, count);
      take(those, 0, count, kept, [&](int64_t i) { return left[i]; });
      kept_.insert(kept);
      done += m;
    }
  }

 private:
  static constexpr int kBlock = Candidates<R>::kBlock;

  // Takes candidates [first, last) of `boxes` in turn until `limit` are kept; rank(i) is the place of i among all.
  // `kept`: who may suppress them, and where ordinary ones are kept.
  template <class Rank>
  void take(const RankedBoxes<R>& boxes, int64_t first, int64_t last, KeptBoxes<R>& kept, Rank rank) {
    Candidates<R> block;
    Hints<R> hints;
    uint32_t cells[kBlock];
    uint8_t open[kBlock];
    const bool hinted = last - first > kBlock;
    if (hinted) hints.forget();
    for (; first < last; first += kBlock) {
      boxes.load(first, last, block);
      if (hinted) hints.find_cells(block, cells);
      const int left = hinted ? hints.left_by(kept, block, cells, open) : all(block, open);
      for (int k = 0; k < left; ++k) {
        const int i = open[k];
        const R box = block[i];
        if (k + 8 < left) kept.fetch_bucket(block[open[k + 8]]);
        if (k + 4 < left) kept.fetch_shelf(block[open[k + 4]]);
        if (const int64_t place = box.ordinary() ? kept.find(box) : -1; place >= 0) {
          if (hinted) hints.learn(cells[i], place);
          continue;
        }
        if ((!box.ordinary() || !huge_.empty()) && suppressed_as_huge(box, kept)) continue;
        if (box.ordinary() && kept.insert(box)) hints.forget();
        keep_[rank(first + i)] = true;
        if (++count_ == limit_) return;
      }
    }
  }

  // Writes which of the n candidates from `first` on no kept ordinary box suppresses. Threads may share it.
  void sift(int64_t first, int64_t n, uint8_t* open) const {
    Candidates<R> block;
    Hints<R> hints;
    uint32_t cells[kBlock];
    uint8_t among[kBlock];
    std::vector<uint64_t> keys(n);
    for (int64_t at = 0; at < n; at += kBlock) {
      boxes_.load(first + at, first + n, block);
      for (int i = 0; i < block.count; ++i) keys[at + i] = kept_.neighbourhood(block[i]);
    }
    std::vector<int64_t> by_place(n), order(n);
    cpu::order_of(keys.data(), n, by_place.data());
    for (int64_t i = 0; i < n; ++i) order[i] = boxes_.order[first + by_place[i]];
    const RankedBoxes<R> those{boxes_.boxes, boxes_.batch, order.data()};
    hints.forget();
    for (int64_t at = 0; at < n; at += kBlock) {
      those.load(at, n, block);
      hints.find_cells(block, cells);
      const int left = hints.left_by(kept_, block, cells, among);
      for (int k = 0; k < left; ++k) {
        const int i = among[k];
        const R box = block[i];
        const int64_t place = box.ordinary() ? kept_.find(box) : -1;
        if (place >= 0) hints.learn(cells[i], place);
        else open[by_place[at + i]] = true;
      }
    }
  }

  static int all(const Candidates<R>& block, uint8_t* open) {
    for (int i = 0; i < kBlock; ++i) open[i] = static_cast<uint8_t>(i);
    return block.count;
  }

  // Boxes whose areas may overflow meet all others one by one, and the kept ones of them are a list of their own.
  __attribute__((noinline)) bool suppressed_as_huge(const R& box, const KeptBoxes<R>& kept) {
    const auto suppresses = [&](const R& a) {
      return a.x1 < box.x2 && box.x1 < a.x2 && a.y1 < box.y2 && box.y1 < a.y2 &&
             R::template iou<true>(a, box) > threshold_;
    };
    if (std::any_of(huge_.begin(), huge_.end(), suppresses)) return true;
    if (!box.huge()) return false;
    if (kept_.any_suppresses_huge(box) || kept.any_suppresses_huge(box)) return true;
    huge_.push_back(box);
    return false;
  }

  RankedBoxes<R> boxes_;
  int64_t n_;
  T threshold_;
  int64_t limit_, count_ = 0;
  bool* keep_;
  KeptBoxes<R> kept_;
  std::vector<R> huge_;
};

// Takes the first n boxes until `limit` are kept, and sets keep[i] of those.
template <class R>
void greedy(const RankedBoxes<R>& boxes, int64_t n, typename R::Scalar threshold, int64_t limit, bool* keep,
            const Parallel& parallel) {
  if (limit > 0) Greedy<R>(boxes, n, threshold, limit, keep).run(parallel);
}

}  // namespace boxops::BOXOPS_ISA
