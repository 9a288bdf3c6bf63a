// Boxes of given sizes, centred on the cells of grids: the anchors of SSD, RPN and YOLO.
//
// out[rows, 4] of any floating dtype: corners. The rows of a level are its cells row by row, and in each cell its
// anchors. Each step is rounded to the compute type of the dtype, then once to it:
//   cx = (x + offset) * stride_x / divisor_x;  x1 = cx - half_width, x2 = cx + half_width;  y likewise
// Write-only and memory-bound: the floor is the bytes written over the memory bandwidth. No workspace.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

// One grid and its anchors. The three ops differ in what they set here.
struct AnchorLevel {
  int64_t height, width;  // cells
  int64_t count;          // anchors of a cell
  double stride_x, stride_y, divisor_x, divisor_y;
  double offset;  // where in its cell a centre lies: 0.5, the middle
  int64_t cells() const { return height * width; }
};

// `halves`: (half_width, half_height) of each anchor of the first level, then of the second, ...
namespace cpu {
BOXOPS_API void anchors(const AnchorLevel* levels, int64_t n_levels, const double* halves, void* out, DType out_type,
                        const Parallel& parallel);
}
namespace cuda {
// One launch for up to 16 levels with up to 96 anchors in all.
BOXOPS_API int anchors(const AnchorLevel* levels, int64_t n_levels, const double* halves, void* out, DType out_type,
                       void* stream);
}  // namespace cuda

}  // namespace boxops
