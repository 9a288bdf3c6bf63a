// Stands in for the core's header of this name, which has inline PTX. Operands out of bounds give noise.
#pragma once

#include "common/divide.h"

namespace boxops::cuda {

inline float quotient(float a, float b) {
  const float size = std::fabs(a);
  const bool a_fits = size == 0 || (size >= kMinDividend && size <= kMaxOperand);
  return a_fits && b >= kMinDivisor && b <= kMaxOperand ? a / b : 0x1.fcfcfcp+125f;
}

}  // namespace boxops::cuda
