// Proves that quotient_from of common/divide.h rounds as IEEE 754 says, from every r that rcp.approx.ftz.f32 may give:
// PTX promises one within a unit in the last place of 1 / b. One b is an exception, that whose mantissa is all ones:
// there r must be the float nearest to 1 / b. The compiler's own division takes the same steps, so it would fail there
// too.
//
// Scaling by powers of 2 changes no step (powers() tries that), so a and b are in [1, 2): A and B times 2^-23. The last
// step rounds q + r rem, where q + rem / b = a / b but for rem's rounding. So it is off from a / b by rem (r - 1 / b)
// and that rounding, and the result is wrong only if a number halfway between two floats lies in between. remainders()
// bounds both for every B. Such a number is M 2^-24 (for A >= B; else M 2^-25), M odd, and off from a / b by
// D = A 2^24 - B M of the units 2^-47 / B (2^25; 2^-48 / B). halfway() solves for A and M for every B and every D of up
// to kNear units, which are more than what remainders() finds, and tries all of these.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <random>

#include "common/divide.h"

namespace {

constexpr int64_t kNear = 8, kOne = 1 << 23;

float number(int64_t mantissa, int exponent) { return std::ldexp(static_cast<float>(mantissa), exponent - 23); }

// Calls f(r) for what the instruction may give for 1 / b, b in [1, 2).
template <class F>
void for_each_reciprocal(float b, F&& f) {
  const float nearest = 1.0f / b;
  f(nearest);
  if (b == number(2 * kOne - 1, 0)) return;
  for (const float end : {0.0f, 2.0f}) {
    const float r = std::nextafterf(nearest, end);
    if (std::fabs(static_cast<double>(r) - 1.0 / static_cast<double>(b)) <= (r > 1 ? 0x1p-23 : 0x1p-24)) f(r);
  }
}

[[noreturn]] void fail(const char* what, float a, float b, float r) {
  std::printf("%s: %a / %a from %a gives %a, not %a\n", what, a, b, r, boxops::quotient_from(r, a, b), a / b);
  std::exit(1);
}

void try_one(const char* what, float a, float b) {
  for_each_reciprocal(b, [&](float r) {
    if (boxops::quotient_from(r, a, b) != a / b) fail(what, a, b, r);
  });
}

// The inverse of an odd number modulo 2^64.
uint64_t inverse(uint64_t odd) {
  uint64_t x = odd;
  for (int i = 0; i < 6; ++i) x *= 2 - odd * x;
  return x;
}

// Every A for which A 2^k - B M is D, M odd in (2^24, 2^25); k = 24 for A >= B, 25 for less.
int64_t halfway(int64_t B) {
  int64_t tried = 0;
  const int zeros = __builtin_ctzll(static_cast<uint64_t>(B));
  if ((int64_t(1) << zeros) > kNear) return 0;
  const uint64_t inverted = inverse(static_cast<uint64_t>(B >> zeros));
  for (int64_t odd = 1; odd << zeros <= kNear; odd += 2)
    for (const int64_t d : {odd, -odd})
      for (const int k : {24, 25}) {
        const int64_t step = int64_t(1) << (k - zeros);
        const int64_t first = static_cast<int64_t>((uint64_t(0) - static_cast<uint64_t>(d)) * inverted) & (step - 1);
        for (int64_t M = first; M < 4 * kOne; M += step) {
          if (M <= 2 * kOne) continue;
          const int64_t A = (B * M + d * (int64_t(1) << zeros)) >> k;
          if (A < kOne || A >= 2 * kOne || (A >= B) != (k == 24)) continue;
          try_one("near a half", number(A, 0), number(B, 0)), ++tried;
        }
      }
  return tried;
}

// The largest |rem (r - 1 / b)| and what rem's rounding adds to it, in the units of D.
double remainders(int64_t B) {
  const float b = number(B, 0);
  double most = 0;
  for_each_reciprocal(b, [&](float approximate) {
    const float r = std::fmaf(approximate, std::fmaf(-b, approximate, 1.0f), approximate);
    const double off = std::fabs(static_cast<double>(r) - 1.0 / static_cast<double>(b)) + 0x1p-53;
    for (const bool less : {false, true}) {
      // q = a r, rounded: off from a / b by a times r's error and half a place of q, a below b or 2.
      const double rem =
          static_cast<double>(b) * ((less ? static_cast<double>(b) : 2.0) * off + (less ? 0x1p-25 : 0x1p-24));
      const double place = less ? 0x1p-47 : 0x1p-46;  // rem is a multiple of it; exact up to 2^24 of them
      const double rounding = rem > 0x1p24 * place ? place * std::ceil(rem / (0x1p25 * place)) : 0;
      const double unit = (less ? 0x1p-48 : 0x1p-47) / static_cast<double>(b);
      const double sum = (rem * off + rounding * static_cast<double>(r)) / unit;
      if (sum > most) most = sum;
    }
  });
  return most;
}

// All exponents within the bounds, mantissas at the ends and some at random.
int64_t powers() {
  std::mt19937 random(0);
  int64_t tried = 0;
  const int most = std::ilogb(boxops::kMaxOperand);
  for (int eb = std::ilogb(boxops::kMinDivisor); eb <= most; ++eb)
    for (int ea = std::ilogb(boxops::kMinDividend); ea <= most; ++ea) {
      int64_t mantissas[] = {kOne, kOne + 1, kOne + kOne / 2, 2 * kOne - 2, 2 * kOne - 1, 0, 0};
      for (int i = 5; i < 7; ++i) mantissas[i] = kOne + static_cast<int64_t>(random() % kOne);
      for (const int64_t A : mantissas)
        for (const int64_t B : mantissas) {
          const float a = number(A, ea), b = number(B, eb);
          if (a > boxops::kMaxOperand || b > boxops::kMaxOperand) continue;
          for_each_reciprocal(number(B, 0), [&](float r) {
            const float scaled = std::ldexp(r, -eb);
            for (const float signed_a : {a, -a, 0.0f})
              if (boxops::quotient_from(scaled, signed_a, b) != signed_a / b) fail("powers", signed_a, b, scaled);
            ++tried;
          });
        }
    }
  return tried;
}

}  // namespace

// divide_test STEP FIRST: every STEP-th B.
int main(int, char** arguments) {
  const int64_t step = std::atoll(arguments[1]), first = std::atoll(arguments[2]);
  int64_t tried = 0;
  double most = 0;
  std::mt19937 random(1);
  for (int64_t B = kOne + first; B < 2 * kOne; B += step) {
    tried += halfway(B);
    if (const double now = remainders(B); now > most) most = now;
    for (const int64_t A :
         {kOne, kOne + 1, B, B - 1, B + 1, 2 * kOne - 1, kOne + static_cast<int64_t>(random() % kOne)})
      if (A >= kOne && A < 2 * kOne) try_one("other", number(A, 0), number(B, 0));
  }
  if (most >= kNear) std::printf("off by %f units, which halfway() does not cover\n", most), std::exit(1);
  std::printf("%lld near a half, %lld powers, off by %.2f units\n", static_cast<long long>(tried),
              static_cast<long long>(powers()), most);
}
