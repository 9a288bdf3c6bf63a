// Division without a branch (divide.h). The emulator of the tests has its own header of this name.
#pragma once

#include "common/divide.h"

namespace boxops::cuda {

// a / b, rounded as IEEE 754 says, of operands within the bounds of divide.h.
__device__ inline float quotient(float a, float b) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(b));
  return quotient_from(r, a, b);
}

}  // namespace boxops::cuda
