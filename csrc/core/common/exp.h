// e^x for x <= 0 with the same bits on every backend, so that decisions that hang on it agree too.
#pragma once

#include "common/dtype.h"

namespace boxops {

// Within 2 units in the last place; 0 below -87, where e^x is about to leave the normal range. The polynomial is that
// of Cephes' expf. Adding 1.5 * 2^23 rounds to an integer, ties to even, without a function call.
BOXOPS_HD float exp_of_negative(float x) {
  constexpr float kMagic = 12582912.0f;
  const bool tiny = x < -87.0f;
  x = x > -88.0f ? x
                 : -88.0f;  // and a choice of the power instead of the result: loops with branches are no vector code
  const float shifted = x * 1.4426950408889634f + kMagic, k = shifted - kMagic;
  const float r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const uint32_t exponent = detail::bits_as<uint32_t>(shifted) - detail::bits_as<uint32_t>(kMagic) + 127u;
  const float power = detail::bits_as<float>(tiny ? 0u : exponent << 23);
  return (p * (r * r) + r + 1.0f) * power;
}

// The same with Taylor's coefficients up to r^13, and 0 below -708.
BOXOPS_HD double exp_of_negative(double x) {
  constexpr double kMagic = 6755399441055744.0;
  const bool tiny = x < -708.0;
  x = x > -709.0 ? x : -709.0;
  const double shifted = x * 1.4426950408889634 + kMagic, k = shifted - kMagic;
  const double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 1.0 / 2.0;
  const uint64_t exponent = detail::bits_as<uint64_t>(shifted) - detail::bits_as<uint64_t>(kMagic) + 1023u;
  const double power = detail::bits_as<double>(tiny ? uint64_t(0) : exponent << 52);
  return (p * (r * r) + r + 1.0) * power;
}

}  // namespace boxops
