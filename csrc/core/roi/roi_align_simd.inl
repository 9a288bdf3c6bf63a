// The vector loops of roi_align_cpu.cpp, over the B channels of a block.
#include "roi/roi_lanes.inl"

namespace boxops::BOXOPS_ISA {

// Bin rows [begin, end) of one RoI into a tile.
template <class T, int B>
void align_rows(const AlignPlan<T>& plan, int64_t begin, int64_t end, const int64_t* row_at, const int64_t* column_at,
                const T* __restrict__ pixels, T* __restrict__ tile) {
  for (int64_t p = begin; p < end; ++p)
    for (int64_t q = 0; q < plan.x.lists(); ++q, tile += B) {
      Lanes<T, B> bin = Lanes<T, B>::of(T(0));
      for (const Tap<T>& y : plan.y.of(p)) {
        const T* row = pixels + row_at[y.index];
        Lanes<T, B> sum = Lanes<T, B>::of(T(0));
        for (const Tap<T>& x : plan.x.of(q)) sum.add(Lanes<T, B>::at(row + column_at[x.index]), x.weight);
        bin.add(sum, y.weight);
      }
      bin.divide(plan.divisor);
      bin.store(tile);
    }
}

// Adds the gradients of bin rows [begin, end), given as a tile, to the pixels whose rows have an offset >= 0.
template <class T, int B>
void align_rows_backward(const AlignPlan<T>& plan, int64_t begin, int64_t end, const int64_t* row_at,
                         const int64_t* column_at, const T* __restrict__ tile, T* __restrict__ pixels) {
  for (int64_t p = begin; p < end; ++p)
    for (int64_t q = 0; q < plan.x.lists(); ++q, tile += B) {
      Lanes<T, B> grad = Lanes<T, B>::at(tile);
      grad.divide(plan.divisor);
      for (const Tap<T>& y : plan.y.of(p)) {
        if (row_at[y.index] < 0) continue;
        T* row = pixels + row_at[y.index];
        Lanes<T, B> part = Lanes<T, B>::of(T(0));
        part.add(grad, y.weight);
        for (const Tap<T>& x : plan.x.of(q)) {
          T* pixel = row + column_at[x.index];
          Lanes<T, B> sum = Lanes<T, B>::at(pixel);
          sum.add(part, x.weight);
          sum.store(pixel);
        }
      }
    }
}

}  // namespace boxops::BOXOPS_ISA
