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
  if (!baseline_only && !avx2_at_most && __builtin_cpu_supports("x86-64-v4")) return Isa::kAvx512;
  if (!baseline_only && __builtin_cpu_supports("x86-64-v3")) return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

Isa isa() {
  static const Isa best = detect();
  return best;
}

}  // namespace boxops
