// Makes the library's first call of CUDA, and prints what it throws.
#include <cstdio>
#include <exception>

#include "ops/cuda_runtime.h"

int main() {
  try {
    boxops::cuda_allocate(boxops::Device{}, 1, nullptr, nullptr);
  } catch (const std::exception& error) {
    std::puts(error.what());
  }
}
