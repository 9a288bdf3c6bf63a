// Small CUDA programs that try the emulator itself: PROGRAM(name) { ... return result; }
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

struct Program {
  const char* name;
  double (*run)();
  const Program* next;
  static const Program*& first() {
    static const Program* program = nullptr;
    return program;
  }
  Program(const char* name, double (*run)()) : name(name), run(run), next(first()) { first() = this; }
};

#define PROGRAM(name)                               \
  static double name();                             \
  static const Program name##_program(#name, name); \
  static double name()

// An array in device memory.
template <class T>
class Device {
 public:
  explicit Device(const std::vector<T>& values) : size_(values.size()) {
    cudaMalloc(&data_, size_ * sizeof(T));
    cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice);
  }
  explicit Device(size_t size) : Device(std::vector<T>(size)) {}
  Device(const Device&) = delete;
  ~Device() { cudaFree(data_); }
  operator T*() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> copy(size_);
    cudaMemcpy(copy.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost);
    return copy;
  }

 private:
  size_t size_;
  T* data_;
};

// Launches clusters of so many blocks, and exits with 3 if the launch fails; the emulator has printed why.
template <class... Parameters, class... Arguments>
void launch_with(unsigned cluster, size_t dynamic_bytes, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                 const Arguments&... arguments) {
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {cluster, 1, 1};
  cudaLaunchConfig_t config;
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = dynamic_bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  if (cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...) == cudaSuccess) return;
  printf("%s\n", cudaGetErrorString(cudaGetLastError()));
  fflush(stdout);
  _Exit(3);  // what is on the stack has not been freed: no leak check
}

template <class... Parameters, class... Arguments>
void launch_with_shared(size_t dynamic_bytes, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                        const Arguments&... arguments) {
  launch_with(1, dynamic_bytes, kernel, grid, block, arguments...);
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, const Arguments&... arguments) {
  launch_with_shared(0, kernel, grid, block, arguments...);
}

template <class T>
double count_differences(const std::vector<T>& a, const std::vector<T>& b) {
  int count = a.size() != b.size();
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) count += !(a[i] == b[i]);
  return count;
}
