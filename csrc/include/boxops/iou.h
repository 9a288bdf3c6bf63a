// IoU and its relatives (IoA, GIoU, DIoU, CIoU), pairwise and paired, with their gradients.
//
// boxes1 [B, N, 4], boxes2 [B, M, 4]: any dtype and strides, batch stride 0 broadcasts. `iou_eps` is added to the
// IoU's divisor, `eps` to the penalties'.
//   pairwise: out [B, N, M];  paired: N == M, out [B, N].  out and gradients are contiguous, of the compute type.
// NaN and degenerate boxes: boxops/types.h. No workspace: nothing but the output is written.
// The gradients sum in a fixed order: equal inputs give equal bits on one device.
//
// Floor: the bytes of the output (4 N M for float) over the memory bandwidth; about 20 operations a pair.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

struct MeasureOptions {
  Measure measure;
  bool paired;
  double iou_eps, eps;
};

namespace cpu {

BOXOPS_API void iou(const Boxes& boxes1, const Boxes& boxes2, const MeasureOptions& options, void* out,
                    const Parallel& parallel);

// grad_out as out; grad1 [B, N, 4] and grad2 [B, M, 4].
BOXOPS_API void iou_backward(const Boxes& boxes1, const Boxes& boxes2, const MeasureOptions& options,
                             const void* grad_out, void* grad1, void* grad2, const Parallel& parallel);

}  // namespace cpu

namespace cuda {

// `stream` is a cudaStream_t. Returns a cudaError_t, 0 for success.
BOXOPS_API int iou(const Boxes& boxes1, const Boxes& boxes2, const MeasureOptions& options, void* out, void* stream);

BOXOPS_API int iou_backward(const Boxes& boxes1, const Boxes& boxes2, const MeasureOptions& options,
                            const void* grad_out, void* grad1, void* grad2, void* stream);

}  // namespace cuda
}  // namespace boxops
