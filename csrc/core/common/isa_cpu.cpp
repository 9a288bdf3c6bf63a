#include "common/isa.h"

#include <cstdlib>
#include <cstring>

namespace boxops {

static Isa detect() {
#if BOXOPS_X86
  __builtin_cpu_init();
  const char* asked = std::getenv("BOXOPS_ISA");
  const bool baseline_only = asked != nullptr && std::strcmp(asked, "baseline") == 0;
  const bool avx2_at_most = asked != nullptr && std::strcmp(asked, "avx2") == 0;
  // x86-64-v3 and x86-64-v4, whose names g++ 11 does not take here.
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                  __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("lzcnt") &&
                  __builtin_cpu_supports("movbe") && __builtin_cpu_supports("f16c");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  if (v4 && !baseline_only && !avx2_at_most) return Isa::kAvx512;
  if (v3 && !baseline_only) return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

Isa isa() {
  static const Isa best = detect();
  return best;
}

}  // namespace boxops
