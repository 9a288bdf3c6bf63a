// The variables behind the constants that kernels see. This file alone does not include
// cuda_runtime.h, which declares them const.
#include "device/vector_types.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_emulator {

void set_dimensions(dim3 grid, dim3 block) {
  gridDim = grid;
  blockDim = block;
}
void set_block_index(uint3 index) { blockIdx = index; }
void set_thread_index(uint3 index) { threadIdx = index; }

}  // namespace cuda_emulator
