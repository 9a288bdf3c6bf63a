// The few CUDA runtime calls that ops and bindings make; they throw where boxops was built without CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <boxops/array.h>
#include <boxops/portability.h>

namespace boxops {

// Makes a device current while it lives.
class BOXOPS_API DeviceScope {
 public:
  explicit DeviceScope(Device device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  [[maybe_unused]] int previous_ = -1;
};

// Throws std::runtime_error for a cudaError_t other than success.
BOXOPS_API void check_cuda(const char* op, int error);
BOXOPS_API void copy_to_host(const char* op, void* to, const void* from, size_t bytes, void* stream);  // waits
BOXOPS_API void copy_on_device(const char* op, void* to, const void* from, size_t bytes, void* stream);

// For bindings of frameworks without an allocator of their own: memory, ordered on a stream that `keeps_stream` keeps
// (std::bad_alloc if there is none), and a wait of another stream (numbered as in DLPack) for a stream.
BOXOPS_API std::shared_ptr<void> cuda_allocate(Device device, int64_t bytes, void* stream,
                                               std::shared_ptr<void> keeps_stream);
BOXOPS_API void cuda_stream_waits(Device device, int64_t waiting, void* stream);

}  // namespace boxops
