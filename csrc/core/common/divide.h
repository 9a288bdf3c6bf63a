// The steps of a division without a branch, of which several can be in flight together, and the operands that it takes.
#pragma once

#include <cmath>

#include "common/dtype.h"

namespace boxops {

// Of a / b: b is positive and in [kMinDivisor, kMaxOperand]; |a| is 0 or in [kMinDividend, kMaxOperand]. Then no step
// below leaves the normal numbers, but for remainders, which are exact.
constexpr float kMinDividend = 0x1p-86f, kMinDivisor = 0x1p-40f, kMaxOperand = 0x1p40f;

// a / b, rounded as IEEE 754 says, from an approximate r = 1 / b that is off by 2^-23 of the least power of 2 above r
// at most: a step of Newton's, and one by the exact remainder (Markstein 1990). The compiler's own division does the
// same once it has tested the operands. tests/cpp/divide_test.cpp proves it.
BOXOPS_HD float quotient_from(float r, float a, float b) {
  r = std::fmaf(r, std::fmaf(-b, r, 1.0f), r);
  const float q = a * r;
  return std::fmaf(r, std::fmaf(-b, q, a), q);
}

}  // namespace boxops
