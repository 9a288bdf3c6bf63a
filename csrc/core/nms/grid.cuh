// Where the kept boxes of earlier rounds lie, for greedy NMS of very many boxes on the device: a candidate meets only
// those that could overlap it too much.
//
// Boxes are filed by the levels of their width and of their height, and by the cell of their centre; a level's cells
// are as wide as suits its boxes. All that, and the segment, hash to a slot, and a slot is a chain:
//
//   heads  | -1 | 17 | -1 | 4 | ...        by slot: the place of the box filed last, -1: none
//                 |         |
//   next         17 -> 9    4 -> -1        by place: the one filed before it
//                      |
//                      v
//                     -1
//
// If IoU(a, b) > t then on each axis the ratio of the sides exceeds t, and the overlap exceeds t times the larger side:
// the intersection is at most overlap x height, the union at least larger width x that box's height. So the levels to
// search are those within the factor t, and the other centre lies in a window around the box's. Ratio and window are
// widened by far more than what rounding does. A warp searches, first along each axis apart, then their products:
//
//   columns, a lane each | level 3, x = 7 | level 3, x = 8 | level 4, x = 3 |    rows likewise; then a lane takes the
//   slot of one column and one row
//
// Boxes of one cell are alike, so that few of them are kept together, however crowded the scene is: a search takes
// bounded time. Cells that share a slot, and the order in a chain, cost time but change no answer. Odd boxes, with
// areas so small that they have lost precision or sides at the end of double's range, are a list that all look through.
#pragma once

#include "common/warp.cuh"
#include "nms/order.cuh"

namespace boxops::cuda {
namespace {

constexpr double kLeastGridded = 0.1;  // below, thresholds bound sides too little

struct KeptGrid {
  enum Home : int { kNowhere = -1, kOdd = -2 };  // kNowhere: overlaps nothing
  double slack;                                  // above the rounding errors
  double ratio;                                  // of the sides, and of the overlap to the larger one: a match has more
  double cell;                                   // a cell is so many of the largest side of its level
  int step;                                      // of levels, on the upper half of a double's bits
  int slot_bits;
  int *heads, *next;
  int* home;             // by place: its slot
  int *odd, *odd_count;  // places of those that are odd

  template <class T>
  KeptGrid(Workspace& w, int64_t n, T threshold)
      : slack(sizeof(T) == 4 ? 1e-5 : 1e-12),
        ratio(min_of(static_cast<double>(threshold), 0.99) * (1 - slack)),
        cell(2 * (1 - ratio)),
        step(static_cast<int>((1 << 20) * 1.5 * std::log2(1 / ratio))),
        slot_bits(bits_of(2 * n)),
        heads(w.take<int>(slots())),
        next(w.take<int>(n)),
        home(w.take<int>(n)),
        odd(w.take<int>(n)),
        odd_count(w.take<int>(1)) {}
  BOXOPS_HD int64_t slots() const { return int64_t(1) << slot_bits; }

  // Side by side the bits of positive numbers rise with them: nearly their logarithm.
  __device__ int level(double side) const { return static_cast<int>(detail::bits_as<uint64_t>(side) >> 32) / step; }
  __device__ double cells_per_unit(int level) const { return 1 / (cell * largest(level)); }
  __device__ double largest(int level) const { return detail::bits_as<double>(uint64_t((level + 1) * step) << 32); }
  __device__ static int64_t whole(double x) { return static_cast<int64_t>(std::floor(x)); }
  __device__ static uint64_t column(int level, int64_t cell) {
    return static_cast<uint64_t>(cell) + static_cast<uint64_t>(level) * 0x9e3779b97f4a7c15;
  }
  __device__ int slot(uint64_t column, uint64_t row, int64_t segment) const {
    uint64_t hash = column * 0xff51afd7ed558ccd;
    hash = ((hash ^ hash >> 32) + row) * 0xc4ceb9fe1a85ec53;
    hash = ((hash ^ hash >> 32) + static_cast<uint64_t>(segment)) * 0x9e3779b97f4a7c15;
    return static_cast<int>(hash >> (64 - slot_bits));
  }
};

template <class T>
__device__ double middle(T low, T high) {
  return 0.5 * static_cast<double>(low) + 0.5 * static_cast<double>(high);  // their sum could overflow
}

template <class T>
__device__ int home_of(const KeptGrid& grid, const Upright<T>& box, int64_t segment) {
  const double w = static_cast<double>(box.x2) - static_cast<double>(box.x1);
  const double h = static_cast<double>(box.y2) - static_cast<double>(box.y1);
  const double far = static_cast<double>(farthest(box));
  if (!(w > 0 && h > 0 && far < std::numeric_limits<double>::infinity()) || box.area == T(0)) return KeptGrid::kNowhere;
  if (box.area < std::numeric_limits<T>::min() * T(1 << 30) || min_of(w, h) < 1e-290 || far > 1e290)
    return KeptGrid::kOdd;
  const int x = grid.level(w), y = grid.level(h);
  const double at_x = middle(box.x1, box.x2) * grid.cells_per_unit(x);
  const double at_y = middle(box.y1, box.y2) * grid.cells_per_unit(y);
  return grid.slot(KeptGrid::column(x, KeptGrid::whole(at_x)), KeptGrid::column(y, KeptGrid::whole(at_y)), segment);
}

// Files a kept box.
__device__ void file(const KeptGrid& grid, int place) {
  const int home = grid.home[place];
  if (home >= 0) grid.next[place] = atomicExch(&grid.heads[home], place);
  if (home == KeptGrid::kOdd) grid.odd[atomicAdd(grid.odd_count, 1)] = place;
}

// The cells along one axis where the centre of a box may lie that overlaps this one too much: level after level, those
// of the window. Each lane has one; of more than 32 the others are not told.
struct CellsOfAxis {
  int64_t count = 0;
  uint64_t column = 0;

  __device__ CellsOfAxis(const KeptGrid& grid, double centre, double side) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const double most = side / grid.ratio;
    for (int level = grid.level(side * grid.ratio), last = grid.level(most); level <= last; ++level) {
      // (side + v) / 2 - ratio * max(side, v) is largest at the largest v, or at v = side.
      const double larger = min_of(grid.largest(level), most), v = grid.ratio < 0.5 ? larger : min_of(larger, side);
      const double reach = (side + v) * (0.5 + grid.slack) - grid.ratio * max_of(side, v) + std::fabs(centre) * 1e-15;
      const double scale = grid.cells_per_unit(level);
      const int64_t first = KeptGrid::whole((centre - reach) * scale);
      const int64_t more = KeptGrid::whole((centre + reach) * scale) - first + 1;
      if (lane >= count && lane < count + more) column = KeptGrid::column(level, first + lane - count);
      count += more;
    }
  }
};

// Whether one of the kept boxes, which are listed by their places too, overlaps the box at place i too much; a warp
// asks.
template <class T>
__device__ bool meets_kept(const Ordered<Upright<T>>& s, const KeptGrid& grid, const int* listed, int64_t kept,
                           int64_t i, const Threshold<T>& threshold) {
  const int lane = static_cast<int>(threadIdx.x) % 32, home = grid.home[i];
  const Upright<T> box = s.boxes[i];
  const Span own = s.segment[i];
  const auto meets = [&](int64_t place) {
    if (place < own.start || place >= own.end) return false;
    const Upright<T> other = s.boxes[place];
    const T overlap = coarse_overlap(other, box);
    return overlap > T(0) && exceeds(overlap, other, box, threshold);
  };
  const auto meets_any = [&](const int* places, int64_t count) {
    for (int64_t at = 0; at < count; at += 32)
      if (__any_sync(kFullMask, at + lane < count && meets(places[at + lane]))) return true;
    return false;
  };
  if (home == KeptGrid::kNowhere) return false;
  if (home == KeptGrid::kOdd) return meets_any(listed, kept);
  const CellsOfAxis columns(grid, middle(box.x1, box.x2), static_cast<double>(box.x2) - static_cast<double>(box.x1));
  const CellsOfAxis rows(grid, middle(box.y1, box.y2), static_cast<double>(box.y2) - static_cast<double>(box.y1));
  if (columns.count > 32 || rows.count > 32) return meets_any(listed, kept);
  if (meets_any(grid.odd, *grid.odd_count)) return true;
  const int width = static_cast<int>(columns.count), cells = width * static_cast<int>(rows.count);
  for (int first = 0; first < cells; first += 32) {
    const int cell = min_of(first + lane, cells - 1);
    const uint64_t column = __shfl_sync(kFullMask, columns.column, cell % width);
    const uint64_t row = __shfl_sync(kFullMask, rows.column, cell / width);
    bool met = false;
    int place = first + lane < cells ? grid.heads[grid.slot(column, row, own.start)] : -1;
    for (; place >= 0 && !met; place = grid.next[place]) met = meets(place);
    if (__any_sync(kFullMask, met)) return true;
  }
  return false;
}

}  // namespace
}  // namespace boxops::cuda
