// Stands in for the core's header of this name: g++ has no way to take
//   extern __shared__ unsigned char memory[];
// The emulator's block has exactly the bytes of the launch, so AddressSanitizer sees an overrun.
#pragma once

namespace cuda_emulator {
void* dynamic_shared();
}

namespace boxops::cuda {

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(cuda_emulator::dynamic_shared());
}

}  // namespace boxops::cuda
