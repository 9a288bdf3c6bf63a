#include <algorithm>

#include "anchors/anchors.h"
#include "common/cuda_utils.cuh"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 256, kLevels = 16, kAnchors = 96;

// Some anchors of a level. A level with very many is cut into pieces.
template <class T>
struct Piece {
  int64_t width, cells;
  int64_t out;            // the row of its first box
  int64_t per_cell;       // rows from a cell to the next
  int64_t end;            // boxes of the pieces up to and with this one
  int32_t count, halves;  // anchors of a cell here, and where they begin
  T stride_x, stride_y, divisor_x, divisor_y, offset;
};

// What a launch makes, as a kernel parameter: nothing is copied to the device.
template <class T>
struct Pieces {
  int32_t count;
  Piece<T> pieces[kLevels];
  T halves[2 * kAnchors];
};
static_assert(sizeof(Pieces<double>) <= 4000, "kernel parameters hold 4 KB");

// A thread per box. `Index` is as narrow as the number of boxes allows: dividing is most of the arithmetic.
template <class T, class Index>
__global__ void anchors_kernel(const Pieces<T> all, void* out, DType out_type, bool as_rows) {
  const int64_t total = all.pieces[all.count - 1].end;
  for (const int64_t at : grid_stride<kThreads>(total)) {
    int k = 0;
    while (at >= all.pieces[k].end) ++k;
    const Piece<T>& p = all.pieces[k];
    const Index local = static_cast<Index>(at - (k > 0 ? all.pieces[k - 1].end : 0));
    const Index cell = local / static_cast<Index>(p.count), a = local - cell * static_cast<Index>(p.count);
    const Index y = cell / static_cast<Index>(p.width), x = cell - y * static_cast<Index>(p.width);
    const T* half = all.halves + 2 * (p.halves + static_cast<int32_t>(a));
    const Box<T> b =
        box_around(centre_of(static_cast<int64_t>(x), p.offset, p.stride_x, p.divisor_x),
                   centre_of(static_cast<int64_t>(y), p.offset, p.stride_y, p.divisor_y), half[0], half[1]);
    const int64_t i = p.out + static_cast<int64_t>(cell) * p.per_cell + static_cast<int64_t>(a);
    if (as_rows) static_cast<AlignedBox<T>*>(out)[i] = {b};
    else store_box(out, out_type, i, b);
  }
}

template <class T>
int launch_pieces(const Pieces<T>& all, void* out, DType out_type, void* stream) {
  const int64_t total = all.pieces[all.count - 1].end;
  const auto kernel = total <= INT32_MAX ? anchors_kernel<T, uint32_t> : anchors_kernel<T, uint64_t>;
  const bool as_rows = out_type == dtype_of<T>();
  return launch(kernel, grid_x(blocks_of(total, kThreads)), kThreads, stream, all, out, out_type, as_rows);
}

}  // namespace

int anchors(const AnchorLevel* levels, int64_t n_levels, const double* halves, void* out, DType out_type,
            void* stream) {
  return with_compute_type(out_type, [&](auto t) {
    using T = decltype(t);
    Pieces<T> all;
    all.count = 0;
    int64_t first_row = 0, used = 0, boxes = 0;  // of this launch: anchors and boxes so far
    for (int64_t l = 0; l < n_levels; ++l) {
      const AnchorLevel& level = levels[l];
      for (int64_t a = 0; a < level.count && level.cells() > 0;) {
        if (all.count == kLevels || used == kAnchors) {
          BOXOPS_TRY(launch_pieces(all, out, out_type, stream));
          all.count = 0, used = 0, boxes = 0;
        }
        const int64_t count = std::min(level.count - a, kAnchors - used);
        boxes += level.cells() * count;
        all.pieces[all.count++] = {level.width,
                                   level.cells(),
                                   first_row + a,
                                   level.count,
                                   boxes,
                                   static_cast<int32_t>(count),
                                   static_cast<int32_t>(used),
                                   static_cast<T>(level.stride_x),
                                   static_cast<T>(level.stride_y),
                                   static_cast<T>(level.divisor_x),
                                   static_cast<T>(level.divisor_y),
                                   static_cast<T>(level.offset)};
        for (int64_t i = 0; i < 2 * count; ++i) all.halves[2 * used + i] = static_cast<T>(halves[2 * a + i]);
        used += count, a += count;
      }
      first_row += level.cells() * level.count, halves += 2 * level.count;
    }
    return all.count ? launch_pieces(all, out, out_type, stream) : cudaSuccess;
  });
}

}  // namespace boxops::cuda
