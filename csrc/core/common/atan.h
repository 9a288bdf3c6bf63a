// The arc tangent made of +, -, *, / alone, for the reasons of exp_log.h: the same bits on every backend, and vectors.
// The polynomials are minimax fits of (atan(q) / q - 1) / q^2 on [0, 1].
#pragma once

#include "common/dtype.h"

namespace boxops {
namespace detail {

BOXOPS_HD float atan_tail(float z) {
  return -0.333332986f +
         z * (0.199985489f +
              z * (-0.142642424f +
                   z * (0.109521873f +
                        z * (-0.0840345472f +
                             z * (0.0579576567f + z * (-0.0311779026f + z * (0.0109146331f + z * -0.00179362716f)))))));
}

BOXOPS_HD double atan_tail(double z) {
  const double low =
      -0.33333333333333071 +
      z * (0.19999999999951451 + z * (-0.1428571428257461 + z * (0.11111111007013584 + z * -0.09090907002797749)));
  const double second =
      0.076922798372968823 +
      z * (-0.066664040430076787 + z * (0.05880527736417978 + z * (-0.052535182361587808 + z * 0.047223212311727207)));
  const double third =
      -0.042191765713442755 +
      z * (0.0366418658069309 + z * (-0.029903791713291203 + z * (0.021984776386201017 + z * -0.013900491841271404)));
  const double high = 0.0071964575570703003 +
                      z * (-0.002884896219675298 +
                           z * (0.00083131439686500168 + z * (-0.00015215933090531657 + z * 1.3224929159792481e-05)));
  const double z2 = z * z, z5 = (z2 * z2) * z;
  return low + z5 * (second + z5 * (third + z5 * high));
}

}  // namespace detail

// atan2(y, x) of two numbers >= 0, infinite or not, within 1.6 ulp in float and 2.1 in double; 0 for two
// zeros.
template <class T>
BOXOPS_HD T atan2_of(T y, T x) {
  constexpr T half_pi = T(1.57079632679489661923);
  constexpr T rest = sizeof(T) == 4 ? T(-4.37113882867379e-08) : T(6.123233995736766e-17);  // pi / 2 - half_pi
  const T low = y < x ? y : x, high = y < x ? x : y;
  const T q = low < high ? low / high : (high > T(0) ? T(1) : T(0)), z = q * q;
  const T a = q + (q * z) * detail::atan_tail(z);
  return y > x ? half_pi - (a - rest) : a;
}

}  // namespace boxops
