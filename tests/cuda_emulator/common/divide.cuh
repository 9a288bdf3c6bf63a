// Stands in for the core's header of this name, which has inline PTX. Operands out of bounds give noise.
#pragma once

namespace boxops::cuda {

constexpr float kLeastOperand = 0x1p-60f, kMostOperand = 0x1p60f;

inline float quotient(float a, float b) {
  if ((a == 0 || (a > kLeastOperand && a < kMostOperand)) && b > kLeastOperand && b < kMostOperand) return a / b;
  return 0x1.fcfcfcp+125f;
}

}  // namespace boxops::cuda
