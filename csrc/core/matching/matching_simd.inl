// The vector loops of matching_cpu.cpp; compiled once per instruction set (common/isa.h). The guarded ones are for huge
// boxes.
namespace boxops::BOXOPS_ISA {

// Box number `index` against a tile of anchors: raises each anchor's best IoU where it exceeds it, and returns the
// largest IoU of the box. IoUs are never negative, so their bits order them, and integer maxima become vectors.
template <bool guarded, class T>
T best_row(const Shape<T>& box, Lane<T> index, const Tile<T>& tile, int n, T* __restrict__ best,
           Lane<T>* __restrict__ which) {
  Lane<T> highest = 0;
  for (int j = 0; j < n; ++j) {
    const T iou = iou_of<guarded>(box, tile[j]);
    // Maxima, since gcc makes a branch around a masked store of a choice between new and old. Indices rise.
    which[j] = max_of(which[j], iou > best[j] ? index : Lane<T>(0));
    best[j] = max_of(iou, best[j]);
    const Lane<T> bits = detail::bits_as<Lane<T>>(iou);
    highest = bits > highest ? bits : highest;
  }
  return detail::bits_as<T>(highest);
}

template <bool guarded, class T>
void iou_row(const Shape<T>& box, const Tile<T>& tile, int n, T* __restrict__ out) {
  for (int j = 0; j < n; ++j) out[j] = iou_of<guarded>(box, tile[j]);
}

// Notes the anchors of which an ignore box covers more than the threshold.
template <bool guarded, class T>
void covered_row(const Shape<T>& box, const Tile<T>& tile, int n, T threshold, Lane<T>* __restrict__ covered) {
  for (int j = 0; j < n; ++j)
    covered[j] |= measure_of<Measure::kIoA, guarded>(box, tile[j], T(0), T(0)) > threshold ? Lane<T>(1) : Lane<T>(0);
}

// One row of a matrix, in which NaN counts as -inf: raises the maxima of its columns, and returns its own.
template <class T>
T matrix_row(const T* __restrict__ row, int64_t n, T* __restrict__ columns) {
  constexpr int kLanes = 16;
  T lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = -std::numeric_limits<T>::infinity();
  int64_t g = 0;
  for (; g + kLanes <= n; g += kLanes)
    for (int i = 0; i < kLanes; ++i) {
      const T v = row[g + i];  // max_of passes over a first NaN
      lanes[i] = max_of(v, lanes[i]);
      columns[g + i] = max_of(v, columns[g + i]);
    }
  for (; g < n; ++g) {
    lanes[0] = max_of(row[g], lanes[0]);
    columns[g] = max_of(row[g], columns[g]);
  }
  for (int i = 1; i < kLanes; ++i) lanes[0] = max_of(lanes[i], lanes[0]);
  return lanes[0];
}

}  // namespace boxops::BOXOPS_ISA
