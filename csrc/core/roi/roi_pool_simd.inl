// The vector loops of roi_pool_cpu.cpp, over the B channels of a block.
#include "roi/roi_lanes.inl"

namespace boxops::BOXOPS_ISA {

// Bin rows [begin, end) of one RoI into a tile of maxima and, with `places`, one of their indices y width + x.
// A NaN counts as larger than any number, the first of equals as the largest.
template <class T, int B, bool places>
void max_rows(const PoolPlan& plan, int64_t begin, int64_t end, const int64_t* row_at, const int64_t* column_at,
              const T* __restrict__ pixels, int64_t width, T* __restrict__ tile, IndexOf<T>* __restrict__ indices) {
  using Values = Lanes<T, B>;
  using Indices = Lanes<IndexOf<T>, B>;
  for (int64_t p = begin; p < end; ++p)
    for (size_t q = 0; q < plan.x.size(); ++q, tile += B, indices += places ? B : 0) {
      const PixelRange ys = plan.y[p], xs = plan.x[q];
      if (ys.begin >= ys.end || xs.begin >= xs.end) {
        Values::of(T(0)).store(tile);
        if (places) Indices::of(-1).store(indices);
        continue;
      }
      const auto index = [&](int64_t y, int64_t x) { return static_cast<IndexOf<T>>(y * width + x); };
      Values best = Values::at(pixels + row_at[ys.begin - plan.top()] + column_at[xs.begin - plan.left()]);
      Indices at = Indices::of(index(ys.begin, xs.begin));
      for (int64_t y = ys.begin; y < ys.end; ++y) {
        const T* row = pixels + row_at[y - plan.top()];
        for (int64_t x = xs.begin; x < xs.end; ++x) {
          const Values value = Values::at(row + column_at[x - plan.left()]);
          for (int i = 0; i < Values::kCount; ++i) {
            const auto larger = ((value.v[i] <= best.v[i]) == 0) & (best.v[i] == best.v[i]);
            best.v[i] = larger ? value.v[i] : best.v[i];
            if (places) at.v[i] = larger ? typename Indices::Pack{} + index(y, x) : at.v[i];
          }
        }
      }
      best.store(tile);
      if (places) at.store(indices);
    }
}

}  // namespace boxops::BOXOPS_ISA
