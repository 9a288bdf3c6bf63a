// The L1 cost of all boxes with all boxes.
//
// boxes1 [B, N, 4], boxes2 [B, M, 4]: any dtype and strides, batch stride 0 broadcasts. out [B, N, M], contiguous, of
// the compute type of both: ((|dx1| + |dy1|) + |dx2|) + |dy2|, each step rounded. NaN stays NaN. No workspace.
//
// Floor: the bytes of the output over the memory bandwidth.
#pragma once

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

namespace cpu {
BOXOPS_API void box_l1_cost(const Boxes& boxes1, const Boxes& boxes2, void* out, const Parallel& parallel);
}  // namespace cpu

namespace cuda {
// `stream` is a cudaStream_t. Returns a cudaError_t.
BOXOPS_API int box_l1_cost(const Boxes& boxes1, const Boxes& boxes2, void* out, void* stream);
}  // namespace cuda

}  // namespace boxops
