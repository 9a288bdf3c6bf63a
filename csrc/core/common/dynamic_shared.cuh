// Shared memory whose size is an argument of the launch. The emulator of the tests has its own header of this name.
#pragma once

namespace boxops::cuda {

// One array for all types: C++ lets a translation unit declare it only once.
template <class T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

}  // namespace boxops::cuda
