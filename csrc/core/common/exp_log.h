// exp and log made of +, -, *, / and bits alone. libm, NumPy and CUDA differ in the last bits; these give the same
// bits on every backend, are within 1.1 ulp of the true value, and loops of them become vectors.
// The polynomials are Chebyshev fits; the reduction is the usual one, exp(x) = 2^n exp(r) and log(2^n m).
#pragma once

#include <limits>

#include "common/dtype.h"

namespace boxops {
namespace detail {

// Where the two floating types differ. ln2_hi has enough zeros at its end for n * ln2_hi to be exact.
template <class T>
struct Floating;

template <>
struct Floating<float> {
  using Bits = uint32_t;
  static constexpr int mantissa = 23;
  static constexpr Bits bias = 127;
  static constexpr float round = 12582912.0f;                  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float exp_low = -104.5f, exp_high = 89.0f;  // beyond: 0 and infinity
  static constexpr float ln2_hi = 6.9314575195e-01f, ln2_lo = 1.4286067653e-06f;
  static constexpr Bits sqrt_half = 0x3f3504f3u;
  template <class T>
  static BOXOPS_HD T exp_tail(T r) {  // (exp(r) - 1 - r) / r^2
    return 0.5f + r * (0.166665767f + r * (0.0416665542f + r * (0.00836323288f + r * 0.00139262508f)));
  }
  template <class T>
  static BOXOPS_HD T log_tail(T z) {  // (log((1 + s) / (1 - s)) / s - 2) / z, z = s^2
    return 0.666666666f + z * (0.400001222f + z * (0.285507786f + z * 0.233316145f));
  }
};

template <>
struct Floating<double> {
  using Bits = uint64_t;
  static constexpr int mantissa = 52;
  static constexpr Bits bias = 1023;
  static constexpr double round = 6755399441055744.0;
  static constexpr double exp_low = -746.0, exp_high = 710.0;
  static constexpr double ln2_hi = 6.93147180369123816490e-01, ln2_lo = 1.90821492927058770002e-10;
  static constexpr Bits sqrt_half = 0x3fe6a09e667f3bcdu;
  template <class T>
  static BOXOPS_HD T exp_tail(T r) {
    const T low = 0.5 + r * (0.16666666666666671 + r * (0.041666666666666671 + r * 0.0083333333333260838));
    const T middle = 0.0013888888888883711 +
                     r * (0.00019841269875002279 + r * (2.4801587325677461e-05 + r * 2.7557255170000888e-06));
    const T high = 2.7557273478718582e-07 + r * (2.5105312729622103e-08 + r * 2.0914755325893202e-09);
    const T r4 = (r * r) * (r * r);
    return low + r4 * (middle + r4 * high);
  }
  template <class T>
  static BOXOPS_HD T log_tail(T z) {
    return 0.66666666666666696 +
           z * (0.39999999999898889 +
                z * (0.28571428626253836 +
                     z * (0.22222211089379496 +
                          z * (0.18182892432536871 + z * (0.15331611722055008 + z * 0.14617807153417325)))));
  }
};

}  // namespace detail

template <class T>
BOXOPS_HD T exp_of(T x) {
  using F = detail::Floating<T>;
  using Bits = typename F::Bits;
  x = x < F::exp_low ? F::exp_low : x;  // NaN stays
  x = x > F::exp_high ? F::exp_high : x;
  const T shifted = x * T(1.44269504088896338700) + F::round;
  const T n = shifted - F::round;
  const T r = (x - n * F::ln2_hi) - n * F::ln2_lo;
  const T y = T(1) + (r + (r * r) * F::exp_tail(r));
  // Times 2^n as two powers, since n may leave the range of exponents: the result may be subnormal or infinite.
  const Bits power = detail::bits_as<Bits>(shifted) - detail::bits_as<Bits>(F::round) + 4 * F::bias;  // positive
  const Bits half = power >> 1;
  const T scale1 = detail::bits_as<T>((half - F::bias) << F::mantissa);
  const T scale2 = detail::bits_as<T>((power - half - F::bias) << F::mantissa);
  return (y * scale1) * scale2;
}

template <class T>
BOXOPS_HD T log_of(T x) {
  using F = detail::Floating<T>;
  using Bits = typename F::Bits;
  constexpr Bits one = F::bias << F::mantissa;
  const bool subnormal = x < std::numeric_limits<T>::min();
  const T scaled = subnormal ? x * T(Bits(1) << (F::mantissa + 1)) : x;
  // m in [sqrt(1/2), sqrt(2)), and n + bias in the bits of exponent and above.
  const Bits bits = detail::bits_as<Bits>(scaled) + (one - F::sqrt_half);
  const T m = detail::bits_as<T>((bits & ((Bits(1) << F::mantissa) - 1)) + F::sqrt_half);
  const T two_to_mantissa = T(Bits(1) << F::mantissa);
  const T n = detail::bits_as<T>((bits >> F::mantissa) | detail::bits_as<Bits>(two_to_mantissa)) - two_to_mantissa -
              (subnormal ? T(F::bias + F::mantissa + 1) : T(F::bias));
  const T f = m - T(1), s = f / (T(2) + f), z = s * s, half_square = T(0.5) * f * f;
  const T y = ((s * (half_square + z * F::log_tail(z)) + n * F::ln2_lo) - half_square) + f + n * F::ln2_hi;
  constexpr T inf = std::numeric_limits<T>::infinity();
  return x > T(0) ? (x < inf ? y : inf) : (x == T(0) ? -inf : std::numeric_limits<T>::quiet_NaN());
}

}  // namespace boxops
