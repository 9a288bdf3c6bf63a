// CUDA's words for functions and variables.
#pragma once

#define __host__
#define __device__
#define __global__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

// One block runs at a time, so a static variable is as good as the block's own. The linker collects
// these variables (shared_memory.ld), so that the engine can spoil them before each block.
#define __shared__ static

// For the emulator's own code in headers: it is compiled along with kernels, but is not watched.
#if __has_attribute(no_sanitize_coverage)
#define EMULATOR_INTERNAL __attribute__((no_sanitize("thread"), no_sanitize_coverage))
#else
#define EMULATOR_INTERNAL __attribute__((no_sanitize("thread")))
#endif

namespace cuda_emulator {

// Where in the source a kernel called the emulator. Unlike a return address it stays one place when
// the optimiser copies the call.
struct Place {
  const char* file;
  int line;
  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

}  // namespace cuda_emulator
