// Stands in for the core's header of this name, which has inline PTX. Operands out of bounds give noise.
#pragma once

namespace boxops::cuda {

constexpr float kMinOperand = 0x1p-60f, kMaxOperand = 0x1p60f;

inline float quotient(float a, float b) {
  if ((a == 0 || (a > kMinOperand && a < kMaxOperand)) && b > kMinOperand && b < kMaxOperand) return a / b;
  return 0x1.fcfcfcp+125f;
}

}  // namespace boxops::cuda
