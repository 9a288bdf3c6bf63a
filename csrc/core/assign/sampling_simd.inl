// The vector loops of sampling_cpu.cpp; compiled once per instruction set (common/isa.h).
namespace boxops::BOXOPS_ISA {

// The random keys of kKeys places from `first` on, a multiple of 4.
inline void random_keys(uint64_t seed, int64_t image, int64_t first, uint32_t* __restrict__ keys) {
  uint32_t word[4][kKeys / 4];
  for (int i = 0; i < kKeys / 4; ++i) {
    const Philox p = philox(seed, static_cast<uint64_t>(image), static_cast<uint64_t>(first / 4 + i));
    word[0][i] = p.word[0], word[1][i] = p.word[1], word[2][i] = p.word[2], word[3][i] = p.word[3];
  }
  for (int i = 0; i < kKeys / 4; ++i)
    for (int w = 0; w < 4; ++w) keys[4 * i + w] = word[w][i];
}

inline void count_matches(const int64_t* matches, int64_t n, int64_t* positives, int64_t* negatives) {
  int64_t p = 0, m = 0;
  for (int64_t i = 0; i < n; ++i) p += matches[i] >= 0, m += matches[i] == -1;
  *positives = p, *negatives = m;
}

}  // namespace boxops::BOXOPS_ISA
