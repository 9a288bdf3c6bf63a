// IoU of rotated boxes, pairwise and paired.
//
// A box is centre x, centre y, width, height and angle in degrees, counter-clockwise as seen in an image whose y points
// down. boxes1 [B, N, 5], boxes2 [B, M, 5]: any dtype and strides, batch stride 0 broadcasts; the format of the views
// means nothing.
//   pairwise: out [B, N, M];  paired: N == M, out [B, N].  out is contiguous, of the compute type. No workspace.
// Boxes with a number that is not finite or about to overflow, or without area, have IoU 0 with everything; an area may
// overflow. The same bits on every backend.
//
// Floor: 4 N M bytes of output for float; 10 operations for a pair whose hulls do not meet, about 220 for others.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

namespace cpu {

BOXOPS_API void rotated_box_iou(const Boxes& boxes1, const Boxes& boxes2, bool paired, void* out,
                                const Parallel& parallel);

}  // namespace cpu

namespace cuda {

// `stream` is a cudaStream_t. Returns a cudaError_t, 0 for success.
BOXOPS_API int rotated_box_iou(const Boxes& boxes1, const Boxes& boxes2, bool paired, void* out, void* stream);

}  // namespace cuda
}  // namespace boxops
