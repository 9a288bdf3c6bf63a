// Random numbers that are a function of (seed, image, place): the same on every backend, in any order.
#pragma once

#include <cstdint>

#include <boxops/portability.h>

namespace boxops {

struct Philox {
  uint32_t word[4];
};

// One of the rounds of Philox4x32 on the counter's words.
BOXOPS_HD void philox_round(uint32_t& c0, uint32_t& c1, uint32_t& c2, uint32_t& c3, uint32_t k0, uint32_t k1) {
  const uint64_t a = uint64_t(0xD2511F53u) * c0, b = uint64_t(0xCD9E8D57u) * c2;
  c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0, c1 = static_cast<uint32_t>(b);
  c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1, c3 = static_cast<uint32_t>(a);
}

// Calls round(k0, k1) with the keys of the ten rounds.
template <class Round>
BOXOPS_HD void philox_rounds(uint64_t seed, Round round) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int i = 0; i < 10; ++i, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) round(k0, k1);
}

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011).
BOXOPS_HD Philox philox(uint64_t seed, uint64_t high, uint64_t low) {
  Philox p{{static_cast<uint32_t>(low), static_cast<uint32_t>(low >> 32), static_cast<uint32_t>(high),
            static_cast<uint32_t>(high >> 32)}};
  philox_rounds(seed,
                [&](uint32_t k0, uint32_t k1) { philox_round(p.word[0], p.word[1], p.word[2], p.word[3], k0, k1); });
  return p;
}

}  // namespace boxops
