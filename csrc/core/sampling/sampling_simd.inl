// The vector loops of sampling_cpu.cpp; compiled once per instruction set (common/isa.h).
namespace boxops::BOXOPS_ISA {

// The random keys of kKeys places from `first` on, a multiple of 4: four places share one block of numbers.
inline void random_keys(uint64_t seed, int64_t image, int64_t first, uint32_t* __restrict__ keys) {
  constexpr int n = kKeys / 4;
  alignas(64) uint32_t c0[n], c1[n], c2[n], c3[n];
  for (int i = 0; i < n; ++i) {
    const uint64_t block = static_cast<uint64_t>(first / 4) + i;
    c0[i] = static_cast<uint32_t>(block), c1[i] = static_cast<uint32_t>(block >> 32);
    c2[i] = static_cast<uint32_t>(image), c3[i] = static_cast<uint32_t>(static_cast<uint64_t>(image) >> 32);
  }
  philox_rounds(seed, [&](uint32_t k0, uint32_t k1) {
    for (int i = 0; i < n; ++i) philox_round(c0[i], c1[i], c2[i], c3[i], k0, k1);
  });
  for (int i = 0; i < n; ++i)
    keys[4 * i] = c0[i], keys[4 * i + 1] = c1[i], keys[4 * i + 2] = c2[i], keys[4 * i + 3] = c3[i];
}

inline void count_matches(const int64_t* matches, int64_t n, int64_t* positives, int64_t* negatives) {
  int64_t p = 0, m = 0;
  for (int64_t i = 0; i < n; ++i) p += matches[i] >= 0, m += matches[i] == -1;
  *positives = p, *negatives = m;
}

}  // namespace boxops::BOXOPS_ISA
