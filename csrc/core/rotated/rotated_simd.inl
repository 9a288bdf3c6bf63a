// The vector loops of rotated_cpu.cpp; compiled once per instruction set (common/isa.h). The guarded ones are for huge
// boxes.
namespace boxops::BOXOPS_ISA {

constexpr int kLanes = 16;

// Turns the first five numbers of each box, as they were loaded, into what the IoU needs.
template <class T>
void rotated_prepare(RotatedTile<T>& tile, int n) {
  for (int j = 0; j < n; ++j)
    tile.set(j, rotated_box_of(tile.numbers[0][j], tile.numbers[1][j], tile.numbers[2][j], tile.numbers[3][j],
                               tile.numbers[4][j]));
}

template <bool guarded, class T>
BOXOPS_HD T rotated_iou(const RotatedBox<T>& a, const RotatedBox<T>& b) {
  const T iou = iou_of_meeting<guarded>(a, b);
  return hulls_meet(a, b) ? iou : T(0);  // no branch, for the sake of vectors
}

// Box j of one tile against box j of the other.
template <bool guarded, class T>
void rotated_paired(const RotatedTile<T>& first, const RotatedTile<T>& second, int n, T* __restrict__ out) {
  for (int j = 0; j < n; ++j) out[j] = rotated_iou<guarded>(first[j], second[j]);
}

template <bool guarded, class T>
void rotated_dense_row(const RotatedBox<T>& box, const RotatedTile<T>& tile, int n, T* __restrict__ out) {
  for (int j = 0; j < n; ++j) out[j] = rotated_iou<guarded>(box, tile[j]);
}

// One box against a tile. Boxes whose hull meets that of the box are brought together in `few` first.
template <bool guarded, class T>
void rotated_row(const RotatedBox<T>& box, const RotatedTile<T>& tile, int n, RotatedTile<T>& few,
                 T* __restrict__ out) {
  alignas(8) uint8_t meets[kRotatedTile];
  int places[kRotatedTile], found = 0;
  std::memset(meets + n / 8 * 8, 0, 8 * (n % 8 != 0));
  for (int j = 0; j < n; ++j) meets[j] = hulls_meet(box, tile[j]);
  for (int j = 0; j < n; j += 8) {
    uint64_t flags;
    for (std::memcpy(&flags, meets + j, 8); flags != 0; flags &= flags - 1)
      places[found++] = j + __builtin_ctzll(flags) / 8;
  }
  if (4 * found > 3 * n) return rotated_dense_row<guarded>(box, tile, n, out);
  for (int j = 0; j < n; ++j) out[j] = T(0);
  if (found == 0) return;
  T iou[kRotatedTile];
  const int whole = static_cast<int>(blocks_of(found, kLanes)) * kLanes;  // no scalar rest
  for (int k = 0; k < whole; ++k) few.set(k, tile[places[min_of(k, found - 1)]]);
  rotated_dense_row<guarded>(box, few, whole, iou);
  for (int k = 0; k < found; ++k) out[places[k]] = iou[k];
}

}  // namespace boxops::BOXOPS_ISA
