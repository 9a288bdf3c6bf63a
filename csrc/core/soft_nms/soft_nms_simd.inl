// The taking and decaying of soft_nms_cpu.cpp over one group; compiled once per instruction set (common/isa.h).
// The guarded ones are for huge boxes.
namespace boxops::BOXOPS_ISA {

constexpr int kSoftLanes = 16;  // boxes in a tile
constexpr int kSoftTiles = 64;  // tiles in a block

// The largest of kSoftLanes numbers; as a plain loop it would not become vector code, for the sake of NaN and -0.
template <class T>
BOXOPS_HD T largest_lane(const T* v) {
  T m[kSoftLanes / 2];
  for (int i = 0; i < kSoftLanes / 2; ++i) m[i] = max_of(v[i], v[i + kSoftLanes / 2]);
  for (int i = 0; i < kSoftLanes / 4; ++i) m[i] = max_of(m[i], m[i + kSoftLanes / 4]);
  return max_of(max_of(m[0], m[1]), max_of(m[2], m[3]));
}

// Boxes in tiles, tiles in blocks; each knows the hull of its boxes and its best score, so that taking a box costs a
// look at the bests and at what meets it.
template <bool gaussian, bool guarded, class T>
class SoftGroup {
 public:
  // Neighbours in the order of the boxes lie near each other, or speed is lost.
  SoftGroup(const SoftBox<T>* boxes, int64_t n, const Decay<T>& decay)
      : decay_(decay), tiles_(blocks_of(n, kSoftLanes)), blocks_(blocks_of(n, kSoftLanes * kSoftTiles)) {
    for (size_t t = 0; t < tiles_.size(); ++t) {
      const int64_t first = static_cast<int64_t>(t) * kSoftLanes, m = std::min<int64_t>(kSoftLanes, n - first);
      SoftBox<T> sorted[kSoftLanes];
      std::copy_n(boxes + first, m, sorted);
      // By index, so that of equal scores in a tile the first is the one to take.
      std::sort(sorted, sorted + m, [](const SoftBox<T>& a, const SoftBox<T>& b) { return a.index < b.index; });
      Tile& tile = tiles_[t];
      Block& block = blocks_[t / kSoftTiles];
      Box<T> hull = nowhere<T>();
      for (int i = 0; i < m; ++i) {
        const SoftBox<T>& b = sorted[i];
        tile.x1[i] = b.x1, tile.y1[i] = b.y1, tile.x2[i] = b.x2, tile.y2[i] = b.y2;
        tile.area[i] = b.area, tile.score[i] = b.score, tile.index[i] = b.index;
        hull = hull_of<T>(hull, b);
      }
      const int at = static_cast<int>(t % kSoftTiles);
      block.x1[at] = hull.x1, block.y1[at] = hull.y1, block.x2[at] = hull.x2, block.y2[at] = hull.y2;
      block.hull = hull_of<T>(block.hull, hull);
      refresh(block, at, tile);
    }
    for (Block& block : blocks_) refresh(block);
  }

  // Takes boxes until none is left: calls take(index, score).
  template <class Take>
  void run(Take take) {
    while (true) {
      int64_t best = 0;
      for (size_t b = 1; b < blocks_.size(); ++b)
        if (blocks_[b].before(blocks_[best])) best = static_cast<int64_t>(b);
      Block& block = blocks_[best];
      if (block.score == kGone) return;
      int at = 0, lane = 0;
      while (block.scores[at] != block.score || block.indices[at] != block.index) ++at;
      Tile& tile = tiles_[best * kSoftTiles + at];
      while (tile.score[lane] != block.score || tile.index[lane] != block.index) ++lane;
      take(block.index, tile.score[lane]);
      const Shape<T> box{{tile.x1[lane], tile.y1[lane], tile.x2[lane], tile.y2[lane]}, tile.area[lane], T(0)};
      tile.score[lane] = kGone;
      refresh(block, at, tile);
      const bool meets = box.area > T(0) && decay_all(box, best);
      if (!meets) refresh(block);
    }
  }

 private:
  static constexpr T kInf = std::numeric_limits<T>::infinity();
  static constexpr T kGone = -kInf;  // below every score that stays

  struct alignas(64) Tile {
    T x1[kSoftLanes], y1[kSoftLanes], x2[kSoftLanes], y2[kSoftLanes], area[kSoftLanes], score[kSoftLanes];
    int64_t index[kSoftLanes];
    Tile() {
      for (int i = 0; i < kSoftLanes; ++i)
        x1[i] = y1[i] = kInf, x2[i] = y2[i] = score[i] = kGone, area[i] = T(0), index[i] = 0;
    }
  };
  struct alignas(64) Block {
    T x1[kSoftTiles], y1[kSoftTiles], x2[kSoftTiles], y2[kSoftTiles];  // hulls of the tiles
    T scores[kSoftTiles];                                              // the best of each tile, and whose it is
    int64_t indices[kSoftTiles];
    Box<T> hull = nowhere<T>();
    T score = kGone;  // the best of the block, and whose it is
    int64_t index = 0;
    Block() {
      for (int i = 0; i < kSoftTiles; ++i) x1[i] = y1[i] = kInf, x2[i] = y2[i] = scores[i] = kGone, indices[i] = 0;
    }
    bool before(const Block& o) const { return score > o.score || (score == o.score && index < o.index); }
  };

  // Finds the tile's best anew.
  static void refresh(Block& block, int at, const Tile& tile) {
    const T best = largest_lane(tile.score);
    int lane = kSoftLanes - 1;
    for (int i = 0; i < kSoftLanes; ++i) {
      const int here = tile.score[i] == best ? i : kSoftLanes - 1;
      lane = here < lane ? here : lane;
    }
    block.scores[at] = best, block.indices[at] = tile.index[lane];
    if (best == kGone) block.x1[at] = kInf, block.x2[at] = -kInf;  // nothing left: meets no box
  }

  // Finds the block's best anew.
  static void refresh(Block& block) {
    T rows[kSoftLanes];
    for (int i = 0; i < kSoftLanes; ++i)
      rows[i] = max_of(max_of(block.scores[i], block.scores[i + kSoftLanes]),
                       max_of(block.scores[i + 2 * kSoftLanes], block.scores[i + 3 * kSoftLanes]));
    const T best = largest_lane(rows);
    int64_t index = std::numeric_limits<int64_t>::max();
    for (int i = 0; i < kSoftTiles; ++i) {
      const int64_t here = block.scores[i] == best ? block.indices[i] : std::numeric_limits<int64_t>::max();
      index = here < index ? here : index;
    }
    block.score = best, block.index = index;
  }

  // Decays what meets the box; whether `own`, the number of the block it came from, was refreshed.
  bool decay_all(const Shape<T>& box, int64_t own) {
    bool refreshed = false;
    for (size_t b = 0; b < blocks_.size(); ++b) {
      Block& block = blocks_[b];
      const Box<T>& hull = block.hull;
      if (block.score == kGone || !(hull.x1 < box.x2 && box.x1 < hull.x2 && hull.y1 < box.y2 && box.y1 < hull.y2))
        continue;
      alignas(8) uint8_t meets[kSoftTiles];
      for (int t = 0; t < kSoftTiles; ++t)
        meets[t] = (block.x1[t] < box.x2) & (box.x1 < block.x2[t]) & (block.y1[t] < box.y2) & (box.y1 < block.y2[t]);
      bool changed = false;
      for (int word = 0; word < kSoftTiles; word += 8) {
        uint64_t any;
        memcpy(&any, meets + word, 8);
        if (any == 0) continue;
        for (int t = word; t < word + 8; ++t)
          if (meets[t]) changed |= decay_tile(box, block, t, tiles_[b * kSoftTiles + t]);
      }
      if (!changed) continue;
      refresh(block);
      refreshed |= static_cast<int64_t>(b) == own;
    }
    return refreshed;
  }

  bool decay_tile(const Shape<T>& box, Block& block, int at, Tile& tile) {
    int meets = 0;
    for (int i = 0; i < kSoftLanes; ++i)
      meets |= (tile.x1[i] < box.x2) & (box.x1 < tile.x2[i]) & (tile.y1[i] < box.y2) & (box.y1 < tile.y2[i]) &
               (tile.score[i] > kGone);
    if (!meets) return false;
    // In short loops, or they do not become vector code.
    T iou[kSoftLanes], score[kSoftLanes];
    for (int i = 0; i < kSoftLanes; ++i) {
      const Shape<T> other{{tile.x1[i], tile.y1[i], tile.x2[i], tile.y2[i]}, tile.area[i], T(0)};
      iou[i] = iou_of<guarded>(box, other);
    }
    for (int i = 0; i < kSoftLanes; ++i) score[i] = tile.score[i] * decay_weight<gaussian>(iou[i], decay_);
    for (int i = 0; i < kSoftLanes; ++i) tile.score[i] = score[i] > decay_.score_threshold ? score[i] : kGone;
    refresh(block, at, tile);
    return true;
  }

  Decay<T> decay_;
  std::vector<Tile> tiles_;
  std::vector<Block> blocks_;
};

// Writes what is taken of boxes[n] to kept and kept_scores; returns how many.
template <bool guarded, class T>
int64_t soft_greedy(const SoftBox<T>* boxes, int64_t n, const Decay<T>& decay, int64_t* kept, T* kept_scores) {
  int64_t count = 0;
  const auto take = [&](int64_t index, T score) { kept[count] = index, kept_scores[count++] = score; };
  if (n == 0) return 0;
  if (decay.gaussian) SoftGroup<true, guarded, T>(boxes, n, decay).run(take);
  else SoftGroup<false, guarded, T>(boxes, n, decay).run(take);
  return count;
}

}  // namespace boxops::BOXOPS_ISA
