// Includes BOXOPS_SIMD_SOURCE once per instruction set; see common/isa.h. No include guard.
#if BOXOPS_X86

#ifdef __clang__  // the width of its vectors is a flag of the build: -mprefer-vector-width
#pragma clang attribute push(__attribute__((target("arch=x86-64-v4"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
#endif
#define BOXOPS_ISA avx512
#define BOXOPS_VECTOR_BYTES 64
#include BOXOPS_SIMD_SOURCE
#undef BOXOPS_VECTOR_BYTES
#undef BOXOPS_ISA
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("arch=x86-64-v3"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#endif
#define BOXOPS_ISA avx2
#define BOXOPS_VECTOR_BYTES 32
#include BOXOPS_SIMD_SOURCE
#undef BOXOPS_VECTOR_BYTES
#undef BOXOPS_ISA
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif

#define BOXOPS_ISA baseline
#define BOXOPS_VECTOR_BYTES 16
#include BOXOPS_SIMD_SOURCE
#undef BOXOPS_VECTOR_BYTES
#undef BOXOPS_ISA
