// Words that let one header serve g++, nvcc and the CUDA emulator of the tests.
#pragma once

#ifdef __CUDACC__
#define BOXOPS_HD __host__ __device__ __forceinline__
#define BOXOPS_HD_RARE __host__ __device__ __noinline__
#else
#define BOXOPS_HD inline __attribute__((always_inline))
#define BOXOPS_HD_RARE inline __attribute__((noinline, cold))
#endif

// Marks what libboxops offers; everything else stays hidden. CMake defines boxops_EXPORTS for the library's own
// sources.
#ifndef _WIN32
#define BOXOPS_API __attribute__((visibility("default")))
#elif defined(boxops_EXPORTS)
#define BOXOPS_API __declspec(dllexport)
#else
#define BOXOPS_API __declspec(dllimport)
#endif
