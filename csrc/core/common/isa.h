// One source, several instruction sets, chosen at run time.
//
// A family's vector loops live in a file `<op>_simd.inl` that common/for_each_isa.h includes once
// per instruction set, each time in another namespace and under another target pragma. All
// of them compute the same bits, since the build forbids contraction; only the width differs.
// The standard library must be included before, so that its templates stay at the baseline.
#pragma once

// g++ for Windows puts wide vectors at places of the stack that are not aligned for them (its bug 54412).
#if defined(__x86_64__) && defined(__GNUC__) && (defined(__clang__) || !defined(_WIN32))
#define BOXOPS_X86 1
#else
#define BOXOPS_X86 0
#endif

namespace boxops {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best instruction set of this machine, or a lower one named by BOXOPS_ISA=baseline|avx2|avx512.
Isa isa();

}  // namespace boxops

// BOXOPS_BY_ISA(fn): the best variant of `fn` for this machine, out of the namespaces made by
// for_each_isa.h.
#if BOXOPS_X86
#define BOXOPS_BY_ISA(...) \
  (isa() == Isa::kAvx512 ? avx512::__VA_ARGS__ : isa() == Isa::kAvx2 ? avx2::__VA_ARGS__ : baseline::__VA_ARGS__)
#else
#define BOXOPS_BY_ISA(...) (baseline::__VA_ARGS__)
#endif
