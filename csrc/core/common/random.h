// Random numbers that are a function of (seed, image, place): the same on every backend, in any order.
#pragma once

#include <cstdint>

#include "common/portability.h"

namespace boxops {

struct Philox {
  uint32_t word[4];
};

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011).
BOXOPS_HD Philox philox(uint64_t seed, uint64_t high, uint64_t low) {
  uint32_t c0 = static_cast<uint32_t>(low), c1 = static_cast<uint32_t>(low >> 32);
  uint32_t c2 = static_cast<uint32_t>(high), c3 = static_cast<uint32_t>(high >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t(0xD2511F53u) * c0, b = uint64_t(0xCD9E8D57u) * c2;
    c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0, c1 = static_cast<uint32_t>(b);
    c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1, c3 = static_cast<uint32_t>(a);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The random key of place i of an image: four places share one block of numbers.
BOXOPS_HD uint32_t random_key(uint64_t seed, int64_t image, int64_t i) {
  return philox(seed, static_cast<uint64_t>(image), static_cast<uint64_t>(i / 4)).word[i % 4];
}

}  // namespace boxops
