// A planted fault that shows as results that change with the seed: floats added in no fixed order.
#include "programs/program.h"

namespace {

__global__ void sum_kernel(const float* in, float* out) { atomicAdd(out, in[blockIdx.x * blockDim.x + threadIdx.x]); }

PROGRAM(order_dependent_sum) {
  std::vector<float> in(256);
  for (int i = 0; i < 256; ++i) in[i] = 1.0f / static_cast<float>(1 + i * i % 1009);
  Device<float> a(in), out(1);
  launch(sum_kernel, 4, 64, a, out);
  return out.values()[0];
}

}  // namespace
