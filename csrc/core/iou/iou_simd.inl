// The vector loops of iou_cpu.cpp; compiled once per instruction set (common/isa.h). The guarded ones are for huge
// boxes.
namespace boxops::BOXOPS_ISA {

template <class T>
void set_angles(Tile<T>& tile, int n) {
  for (int j = 0; j < n; ++j) tile.angle[j] = angle_of<T>(tile[j]);
}

// One box against a tile.
template <Measure measure, bool guarded, class T>
void measure_row(const Shape<T>& box, const Tile<T>& tile, int n, T iou_eps, T eps, T* __restrict__ out) {
  for (int j = 0; j < n; ++j) out[j] = measure_of<measure, guarded>(box, tile[j], iou_eps, eps);
}

// Box j of one tile against box j of the other.
template <Measure measure, bool guarded, class T>
void measure_paired(const Tile<T>& tile1, const Tile<T>& tile2, int n, T iou_eps, T eps, T* __restrict__ out) {
  for (int j = 0; j < n; ++j) out[j] = measure_of<measure, guarded>(tile1[j], tile2[j], iou_eps, eps);
}

// Adds to sum[j] the gradient of box j of the tile against one box; `second`: the tile is boxes2.
template <Measure measure, bool second, bool guarded, class T>
void gradient_row(const Shape<T>& box, const Tile<T>& tile, int n, T iou_eps, T eps, const T* __restrict__ grad,
                  int64_t grad_stride, Tile<T>& sum) {
  for (int j = 0; j < n; ++j) {
    const Shape<T> other = tile[j];
    const Box<T> g = measure_gradient<measure, second, guarded>(second ? box : other, second ? other : box, iou_eps,
                                                                eps, grad[j * grad_stride]);
    sum.x1[j] += g.x1, sum.y1[j] += g.y1, sum.x2[j] += g.x2, sum.y2[j] += g.y2;
  }
}

// The gradient of box j of the tile against box j of its partners.
template <Measure measure, bool second, bool guarded, class T>
void gradient_paired(const Tile<T>& partners, const Tile<T>& tile, int n, T iou_eps, T eps, const T* __restrict__ grad,
                     Tile<T>& out) {
  for (int j = 0; j < n; ++j) {
    const Shape<T> self = tile[j], other = partners[j];
    const Box<T> g =
        measure_gradient<measure, second, guarded>(second ? other : self, second ? self : other, iou_eps, eps, grad[j]);
    out.x1[j] = g.x1, out.y1[j] = g.y1, out.x2[j] = g.x2, out.y2[j] = g.y2;
  }
}

}  // namespace boxops::BOXOPS_ISA
