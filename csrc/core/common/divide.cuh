// Division without a branch. The emulator of the tests has its own header of this name.
#pragma once

namespace boxops::cuda {

// Operands of quotient() lie between these.
constexpr float kMinOperand = 0x1p-60f, kMaxOperand = 0x1p60f;

// a / b, rounded as IEEE 754 says, for a = 0 or within the bounds, and b within them: the steps that the compiler's own
// division takes after it has tested the operands in a wider range, so that several are in flight together.
__device__ inline float quotient(float a, float b) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(b));
  r = __fmaf_rn(r, __fmaf_rn(-b, r, 1.0f), r);
  const float q = __fmul_rn(a, r);
  return __fmaf_rn(r, __fmaf_rn(-b, q, a), q);
}

}  // namespace boxops::cuda
