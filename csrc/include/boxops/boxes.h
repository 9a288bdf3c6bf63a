// Elementwise box operations: area, conversion of format, clipping, size filter.
//
// boxes [1, N, 4] of any dtype, strides and format; outputs are contiguous. Memory-bound: the floor is
// bytes read plus bytes written over the memory bandwidth.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

namespace cpu {

BOXOPS_API void box_area(const Boxes& boxes, void* out, const Parallel& parallel);

// out[N, 4] of floating dtype `out_type`, rounded once.
BOXOPS_API void box_convert(const Boxes& boxes, Format to, void* out, DType out_type, const Parallel& parallel);

// out[N, 4] of the boxes' own dtype; integers are clipped as integers.
BOXOPS_API void clip_boxes(const Boxes& boxes, double height, double width, void* out, const Parallel& parallel);

// Indices of the boxes with width and height >= min_size, rising; returns their number.
BOXOPS_API int64_t large_boxes(const Boxes& boxes, double min_size, int64_t* indices);

}  // namespace cpu

namespace cuda {

BOXOPS_API int box_area(const Boxes& boxes, void* out, void* stream);

BOXOPS_API int box_convert(const Boxes& boxes, Format to, void* out, DType out_type, void* stream);

BOXOPS_API int clip_boxes(const Boxes& boxes, double height, double width, void* out, void* stream);

BOXOPS_API size_t large_boxes_workspace(int64_t count);

// Writes count[1] on the device. `workspace` holds large_boxes_workspace(boxes.count) bytes.
BOXOPS_API int large_boxes(const Boxes& boxes, double min_size, int64_t* indices, int64_t* count, void* workspace,
                           void* stream);

}  // namespace cuda

}  // namespace boxops
