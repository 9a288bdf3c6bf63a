// Launching and small device helpers. Kernels are launched through cudaLaunchKernelEx, plain C++,
// so that the same source also compiles for the CUDA emulator of the tests.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "common/blocks.h"

namespace boxops::cuda {

inline cudaLaunchConfig_t config_of(size_t shared_bytes, dim3 grid, dim3 block, void* stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  return config;
}

// Launches `kernel` with `shared_bytes` of dynamic shared memory (at most 48 KB; see dynamic_shared.cuh) and
// returns the launch's error. An empty grid is no launch.
template <class... Params, class... Args>
int launch_with(size_t shared_bytes, void (*kernel)(Params...), dim3 grid, dim3 block, void* stream, Args... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  const cudaLaunchConfig_t config = config_of(shared_bytes, grid, block, stream);
  return cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
}

template <class... Params, class... Args>
int launch(void (*kernel)(Params...), dim3 grid, dim3 block, void* stream, Args... args) {
  return launch_with(0, kernel, grid, block, stream, args...);
}

#define BOXOPS_TRY(call)                        \
  do {                                          \
    if (const int error = (call)) return error; \
  } while (0)

// Grid sizes are clamped to what CUDA allows; kernels stride over the rest.
inline unsigned grid_x(int64_t blocks) { return static_cast<unsigned>(blocks < (1 << 30) ? blocks : (1 << 30)); }
inline unsigned grid_yz(int64_t blocks) { return static_cast<unsigned>(blocks < 65535 ? blocks : 65535); }

// `for (const int64_t i : grid_stride<kThreads>(n))`: the numbers below n, dealt to the threads of all blocks in turn;
// grid_stride<kThreads, 32> deals them to the warps. Without its number of threads, a block is asked; the compiler then
// unrolls, and takes more registers.
template <int threads, int lanes>
struct GridStride {
  __device__ static int64_t block() { return threads > 0 ? threads : blockDim.x; }
  struct Iterator {
    int64_t i;
    __device__ int64_t operator*() const { return i; }
    __device__ void operator++() { i += int64_t(gridDim.x) * (block() / lanes); }
    __device__ bool operator!=(int64_t end) const { return i < end; }
  };
  int64_t n;
  __device__ Iterator begin() const { return {(int64_t(blockIdx.x) * block() + threadIdx.x) / lanes}; }
  __device__ int64_t end() const { return n; }
};
template <int threads = 0, int lanes = 1>
__device__ GridStride<threads, lanes> grid_stride(int64_t n) {
  return {n};
}

// Cuts a workspace into aligned arrays; with a null base it only measures.
class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(int64_t n) {
    char* at = base_ + used_;
    used_ += (static_cast<size_t>(n) * sizeof(T) + 255) / 256 * 256;
    return reinterpret_cast<T*>(at);
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

// The first i below n, or n, for which `holds` is false, where it is true for all before and false for all behind.
template <class Int, class Holds>
__device__ Int partition_point(Int n, Holds holds) {
  Int low = 0, high = n;
  while (low < high) {
    const Int middle = low + (high - low) / 2;
    if (holds(middle)) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The first of the n rising keys that is not below `key`.
__device__ inline int64_t lower_bound(const uint64_t* keys, int64_t n, uint64_t key) {
  return partition_point(n, [&](int64_t i) { return keys[i] < key; });
}

}  // namespace boxops::cuda
