// The clustering of fusion_cpu.cpp over one label; compiled once per instruction set (common/isa.h).
namespace boxops::BOXOPS_ISA {

constexpr int kFusionLanes = 16;

// The fused boxes so far, coordinate by coordinate in blocks of kFusionLanes. Places not yet taken hold nothing.
template <class T>
class FusedBoxes {
 public:
  explicit FusedBoxes(T threshold) : threshold_(threshold) {}

  void set(int64_t i, const Box<T>& box) {
    if (i / kFusionLanes >= static_cast<int64_t>(blocks_.size())) blocks_.emplace_back();
    const Shape<T> s = shape_of<Measure::kIoU>(box);
    Block& b = blocks_[i / kFusionLanes];
    const int at = static_cast<int>(i % kFusionLanes);
    b.x1[at] = s.x1, b.y1[at] = s.y1, b.x2[at] = s.x2, b.y2[at] = s.y2, b.area[at] = s.area;
    huge_ |= is_huge<Measure::kIoU>(s);
  }

  // The first of the boxes with the largest IoU, if that exceeds the threshold; else -1. `lower` is a little under what
  // is to be exceeded: a product test, which needs no division, finds the few that might, unless boxes are huge.
  int64_t best(const Box<T>& box) const {
    const Shape<T> s = shape_of<Measure::kIoU>(box);
    T best = threshold_, lower = lowered(best);
    int64_t found = -1;
    for (size_t k = 0; k < blocks_.size(); ++k) {
      const Block& b = blocks_[k];
      int maybe = huge_ || is_huge<Measure::kIoU>(s);
      for (int i = 0; i < kFusionLanes; ++i) {
        const T w = min_of(s.x2, b.x2[i]) - max_of(s.x1, b.x1[i]), h = min_of(s.y2, b.y2[i]) - max_of(s.y1, b.y1[i]);
        maybe |= (w > T(0)) & (h > T(0)) & (w * h >= lower * ((b.area[i] + s.area) - w * h));
      }
      if (!maybe) continue;
      for (int i = 0; i < kFusionLanes; ++i) {
        const T iou = iou_of(Shape<T>{{b.x1[i], b.y1[i], b.x2[i], b.y2[i]}, b.area[i], T(0)}, s);
        if (iou > best) best = iou, lower = lowered(best), found = static_cast<int64_t>(k) * kFusionLanes + i;
      }
    }
    return found;
  }

 private:
  struct alignas(64) Block {
    T x1[kFusionLanes] = {}, y1[kFusionLanes] = {}, x2[kFusionLanes] = {}, y2[kFusionLanes] = {},
      area[kFusionLanes] = {};
  };
  static T lowered(T t) { return t * (T(1) - 8 * std::numeric_limits<T>::epsilon()); }

  T threshold_;
  bool huge_ = false;  // one of the boxes is
  std::vector<Block> blocks_;
};

// boxes[n] of one label by falling score; writes the clusters and their models; returns how many.
template <class T>
int64_t cluster(const FusionBox<T>* boxes, int64_t n, T threshold, int64_t words, Cluster<T>* clusters,
                uint64_t* bits) {
  FusedBoxes<T> fused(threshold);
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    const FusionBox<T>& b = boxes[i];
    int64_t at = fused.best(b);
    if (at >= 0) {
      join(clusters[at], b);
    } else {
      at = count++;
      clusters[at] = found(b);
      std::fill_n(bits + at * words, words, 0);
    }
    bits[at * words + b.model / 64] |= uint64_t(1) << (b.model % 64);
    fused.set(at, clusters[at].box);
  }
  return count;
}

}  // namespace boxops::BOXOPS_ISA
