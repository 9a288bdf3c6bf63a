// The greedy pass of nms_cpu.cpp over one group; compiled once per instruction set (common/isa.h).
//
// Candidates come in blocks. Most of a detector's boxes gather around its objects, and are suppressed by the box that
// suppressed their neighbour: a table of hints says which one that was, by size and place. What a hint does not settle
// is looked up among the kept boxes.
//
// Where candidates are very many, a stretch of them at a time is sifted by all threads: held against the boxes kept so
// far, by place, so that memory is met in order. Of those left most overlap no other, and are kept. The rest are taken
// in turn.
#include "nms/cell_list.inl"

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
    constexpr int64_t kFirst = 1 << 14, kVeryMany = 1 << 19;
    const int64_t done = n_ < kVeryMany ? n_ : kFirst;
    take(boxes_, done, kept_, [&](int64_t i, const R&) { keep_[i] = true; });
    if (done < n_) take_the_rest(done, parallel);
  }

 private:
  static constexpr int kBlock = Candidates<R>::kBlock;

  // Some candidates by place, but for `places`, which are by rank. Ranks count from the first of them.
  struct Stretch {
    std::vector<uint64_t> places;
    std::vector<int64_t> ranks, order;
    std::vector<uint8_t> open;  // whether nothing has suppressed it; of those left: whether it is to be taken in turn
    std::vector<R> boxes, kept;
    CellList<R> left;

    void resize(int64_t m) { places.resize(m), ranks.resize(m), order.resize(m), open.resize(m), boxes.resize(m); }
  };

  // Takes the first n of `boxes` in turn until `limit` are kept, and calls keep(i, box) for these.
  // `kept`: who may suppress them, and where ordinary ones are kept.
  template <class Keep>
  void take(const RankedBoxes<R>& boxes, int64_t n, KeptBoxes<R>& kept, Keep keep) {
    Candidates<R> block;
    Hints<R> hints;
    uint32_t cells[kBlock];
    uint8_t open[kBlock];
    const bool hinted = n > kBlock;
    if (hinted) hints.forget();
    for (int64_t first = 0; first < n; first += kBlock) {
      boxes.load(first, n, block);
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
        keep(first + i, box);
        if (++count_ == limit_) return;
      }
    }
  }

  // Not inline: few candidates need no Stretch, and it takes 4 % of an NMS of one box.
  __attribute__((noinline)) void take_the_rest(int64_t done, const Parallel& parallel) {
    constexpr int64_t kStretch = 1 << 15;
    Stretch stretch;
    while (done < n_ && count_ < limit_) {
      const int64_t m = std::min(n_ - done, std::max(kStretch, done / 24));
      take_stretch(done, m, stretch, parallel);
      done += m;
    }
  }

  // Brings the m candidates from `first` on into the order of their places.
  void sort_by_place(int64_t first, int64_t m, Stretch& s, const Parallel& parallel) const {
    s.resize(m);
    parallel.share(m, R::kBoxNs, [&](int64_t begin, int64_t end) {
      Candidates<R> block;
      for (int64_t at = begin; at < end; at += kBlock) {
        boxes_.load(first + at, first + end, block);
        for (int i = 0; i < block.count; ++i) s.places[at + i] = kept_.place_of(block[i]);
      }
    });
    cpu::order_of(s.places.data(), m, s.ranks.data());
    for (int64_t i = 0; i < m; ++i) s.order[i] = boxes_.order[first + s.ranks[i]];
  }

  // Takes the m candidates from `first` on.
  void take_stretch(int64_t first, int64_t m, Stretch& s, const Parallel& parallel) {
    sort_by_place(first, m, s, parallel);
    parallel.share(m, R::kBoxNs, [&](int64_t begin, int64_t end) { sift(s, begin, end); });
    s.left.clear();
    for (int64_t i = 0; i < m; ++i) {
      if (!s.open[i]) continue;
      s.left.add(s.boxes[i], static_cast<uint32_t>(s.places[s.ranks[i]]));
      s.ranks[s.left.size() - 1] = s.ranks[i];
    }
    s.left.close();
    const int64_t left = s.left.size();  // from here on, all are of these
    const bool any_alone = kept_.gridded() && huge_.empty() && !s.left.has_odd() && count_ + left <= limit_;
    parallel.share(left, R::kBoxNs, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) s.open[i] = !(any_alone && s.left.is_alone(i, kept_));
    });

    s.kept.clear();
    const auto keep = [&](int64_t rank, const R& box) {
      keep_[rank] = true;
      if (box.ordinary()) s.kept.push_back(box);
    };
    std::vector<int64_t> ranks, order;
    for (int64_t i = 0; i < left; ++i) {
      if (s.open[i]) ranks.push_back(first + s.ranks[i]);
      else keep(first + s.ranks[i], s.left[i]), ++count_;
    }
    std::sort(ranks.begin(), ranks.end());
    for (const int64_t rank : ranks) order.push_back(boxes_.order[rank]);
    const auto n = static_cast<int64_t>(ranks.size());
    KeptBoxes<R> among(threshold_, n);
    take({boxes_.boxes, boxes_.batch, order.data()}, n, among, [&](int64_t i, const R& box) { keep(ranks[i], box); });
    kept_.insert(s.kept);
  }

  // Writes which of the candidates [at, last) of a stretch no kept ordinary box suppresses. Threads may share it.
  void sift(Stretch& s, int64_t at, int64_t last) const {
    const RankedBoxes<R> boxes{boxes_.boxes, boxes_.batch, s.order.data()};
    Candidates<R> block;
    Hints<R> hints;
    uint32_t cells[kBlock];
    uint8_t among[kBlock];
    hints.forget();
    for (; at < last; at += kBlock) {
      boxes.load(at, last, block);
      std::fill_n(&s.open[at], block.count, 0);
      hints.find_cells(block, cells);
      const int left = hints.left_by(kept_, block, cells, among);
      for (int k = 0; k < left; ++k) {
        const int i = among[k];
        const R box = block[i];
        const int64_t place = box.ordinary() ? kept_.find(box) : -1;
        if (place >= 0) hints.learn(cells[i], place);
        else s.open[at + i] = true, s.boxes[at + i] = box;
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
