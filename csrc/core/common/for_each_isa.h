// Includes BOXOPS_SIMD_SOURCE once per instruction set; see common/isa.h. No include guard.
#if BOXOPS_X86
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
#define BOXOPS_ISA avx512
#include BOXOPS_SIMD_SOURCE
#undef BOXOPS_ISA
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define BOXOPS_ISA avx2
#include BOXOPS_SIMD_SOURCE
#undef BOXOPS_ISA
#pragma GCC pop_options
#endif

#define BOXOPS_ISA baseline
#include BOXOPS_SIMD_SOURCE
#undef BOXOPS_ISA
