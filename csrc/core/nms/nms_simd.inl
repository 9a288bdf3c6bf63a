// The greedy pass of nms_cpu.cpp over one group; compiled once per instruction set (common/isa.h).
//
// Candidates come in blocks. Most of a detector's boxes gather around its objects, and are suppressed by the box that
// suppressed their neighbour: a table of hints says which one that was, by size and place.
#include "nms/kept_boxes.inl"

namespace boxops::BOXOPS_ISA {

template <class R>
class Greedy {
  using T = typename R::Scalar;

 public:
  Greedy(const RankedBoxes<R>& boxes, T threshold) : boxes_(boxes), threshold_(threshold), kept_(threshold) {}

  // Takes candidates [0, n) until `limit` are kept; sets keep[i] of those.
  void run(int64_t n, int64_t limit, bool* keep) {
    Candidates<R> block;
    uint8_t open[kBlock];
    uint32_t cells[kBlock];
    int64_t count = 0;
    for (int64_t first = 0; first < n; first += kBlock) {
      block.count = static_cast<int>(std::min<int64_t>(kBlock, n - first));
      boxes_.load(first, block);
      const bool hinted = n > kBlock;
      if (hinted) find_cells(block, cells);
      const int left = hinted ? by_hints(block, cells, open) : all(block, open);
      for (int k = 0; k < left; ++k) {
        const int i = open[k];
        const R box = block[i];
        int64_t place = -1;
        if (box.ordinary() && (place = kept_.find(box)) >= 0) {
          if (hinted) hints_[cells[i]] = place;
          continue;
        }
        if (!box.ordinary() || !huge_.empty())
          if (suppressed_as_huge(box)) continue;
        if (box.ordinary() && kept_.insert(box)) std::fill_n(hints_, kHints, 0);
        keep[first + i] = true;
        if (++count == limit) return;
      }
    }
  }

 private:
  static constexpr int kHintBits = 10, kHints = 1 << kHintBits;

  static int all(const Candidates<R>& block, uint8_t* open) {
    for (int i = 0; i < kBlock; ++i) open[i] = static_cast<uint8_t>(i);
    return block.count;
  }

  // A hash of the box's size, to a factor of two, and of its centre's cell, about half as large. Rounding does no harm.
  static void find_cells(const Candidates<R>& block, uint32_t* cells) {
    for (int i = 0; i < kBlock; ++i) {
      const float size = static_cast<float>((block.x2[i] - block.x1[i]) + (block.y2[i] - block.y1[i]));
      const uint32_t exponent = min_of(detail::bits_as<uint32_t>(size) >> 23 & 255u, 252u);
      const float per_cell = detail::bits_as<float>((253u - exponent) << 23);
      const float x = static_cast<float>(block.x1[i] + block.x2[i]) * per_cell;
      const float y = static_cast<float>(block.y1[i] + block.y2[i]) * per_cell;
      const auto column = static_cast<uint32_t>(static_cast<int32_t>(min_of(max_of(x, -1e9f), 1e9f)));
      const auto row = static_cast<uint32_t>(static_cast<int32_t>(min_of(max_of(y, -1e9f), 1e9f)));
      cells[i] = (column * 0x9e3779b1u + row * 0x85ebca77u + exponent * 0xc2b2ae3du) >> (32 - kHintBits);
    }
  }

  // Writes which candidates are not suppressed by the box that their hint names; returns how many.
  int by_hints(const Candidates<R>& block, const uint32_t* cells, uint8_t* open) const {
    int left = 0;
    for (int i = 0; i < block.count; ++i) {
      open[left] = static_cast<uint8_t>(i);
      const R box = block[i];
      left += !(box.ordinary() && kept_.suppresses(hints_[cells[i]], box));
    }
    return left;
  }

  // Boxes whose areas may overflow meet all others one by one, and the kept ones of them are a list of their own.
  __attribute__((noinline)) bool suppressed_as_huge(const R& box) {
    const auto suppresses = [&](const R& a) {
      return a.x1 < box.x2 && box.x1 < a.x2 && a.y1 < box.y2 && box.y1 < a.y2 &&
             R::template iou<true>(a, box) > threshold_;
    };
    if (std::any_of(huge_.begin(), huge_.end(), suppresses)) return true;
    if (!box.huge()) return false;
    if (kept_.any_suppresses_huge(box)) return true;
    huge_.push_back(box);
    return false;
  }

  RankedBoxes<R> boxes_;
  T threshold_;
  KeptBoxes<R> kept_;
  std::vector<R> huge_;
  int64_t hints_[kHints] = {};  // places; 0, where none is known, is that of the first kept box
};

// Takes the first n boxes until `limit` are kept; sets keep[i] of those.
template <class R>
void greedy(const RankedBoxes<R>& boxes, int64_t n, typename R::Scalar threshold, int64_t limit, bool* keep) {
  Greedy<R>(boxes, threshold).run(n, limit, keep);
}

}  // namespace boxops::BOXOPS_ISA
