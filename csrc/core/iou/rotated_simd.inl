// The vector loops of rotated_cpu.cpp; compiled once per instruction set (common/isa.h).
namespace boxops::BOXOPS_ISA {

// Box j of one tile against box j of the other, if their hulls meet.
template <class T>
void rotated_paired(const RotatedTile<T>& first, const RotatedTile<T>& second, int n, T* __restrict__ out) {
  for (int j = 0; j < n; ++j) {
    const RotatedBox<T> a = first[j], b = second[j];
    const T iou = iou_of_areas(intersection(a, b), a.area, b.area);
    out[j] = hulls_meet(a, b) ? iou : T(0);
  }
}

// One box against a tile.
template <class T>
void rotated_row(const RotatedBox<T>& box, const RotatedTile<T>& tile, int n, T* __restrict__ out) {
  for (int j = 0; j < n; ++j) {
    const RotatedBox<T> b = tile[j];
    const T iou = iou_of_areas(intersection(box, b), box.area, b.area);
    out[j] = hulls_meet(box, b) ? iou : T(0);
  }
}

// The same where most hulls do not meet: those that do are brought together first.
template <class T>
void rotated_sparse_row(const RotatedBox<T>& box, const RotatedTile<T>& tile, int n, T* __restrict__ out) {
  uint8_t meets[kRotatedTile];
  int places[kRotatedTile + 1], found = 0;
  for (int j = 0; j < n; ++j) meets[j] = hulls_meet(box, tile[j]);
  for (int j = 0; j < n; ++j) places[found] = j, found += meets[j];
  if (4 * found > 3 * n) return rotated_row(box, tile, n, out);
  for (int j = 0; j < n; ++j) out[j] = T(0);
  RotatedTile<T> few;
  T iou[kRotatedTile];
  for (int k = 0; k < found; ++k) few.set(k, tile[places[k]]);
  rotated_row(box, few, found, iou);
  for (int k = 0; k < found; ++k) out[places[k]] = iou[k];
}

}  // namespace boxops::BOXOPS_ISA
