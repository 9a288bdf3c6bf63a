#include "ops/cuda_runtime.h"

#include <stdexcept>
#include <string>

#if BOXOPS_WITH_CUDA
#include <cuda_runtime.h>
#endif

namespace boxops {

#if BOXOPS_WITH_CUDA

DeviceScope::DeviceScope(Device device) {
  cudaGetDevice(&previous_);
  if (previous_ == device.index) previous_ = -1;
  else cudaSetDevice(device.index);
}

DeviceScope::~DeviceScope() {
  if (previous_ >= 0) cudaSetDevice(previous_);
}

void check_cuda(const char* op, int error) {
  if (error == cudaSuccess) return;
  const auto e = static_cast<cudaError_t>(error);
  throw std::runtime_error(std::string(op) + ": CUDA error " + cudaGetErrorName(e) + " (" + cudaGetErrorString(e) +
                           ")");
}

void copy_to_host(const char* op, void* to, const void* from, size_t bytes, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  check_cuda(op, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, s));
  check_cuda(op, cudaStreamSynchronize(s));
}

void copy_on_device(const char* op, void* to, const void* from, size_t bytes, void* stream) {
  check_cuda(op, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(stream)));
}

std::shared_ptr<void> cuda_allocate(Device device, int64_t bytes) {
  const DeviceScope scope(device);
  void* data = nullptr;
  check_cuda("boxops", cudaMallocAsync(&data, static_cast<size_t>(bytes > 0 ? bytes : 1), nullptr));
  return std::shared_ptr<void>(data, [device](void* p) {
    const DeviceScope on(device);
    cudaFreeAsync(p, nullptr);
  });
}

void cuda_stream_waits(Device device, int64_t stream) {
  if (stream == 0 || stream == 1) return;  // the legacy default stream itself
  const DeviceScope scope(device);
  cudaEvent_t event;
  check_cuda("boxops", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  cudaEventRecord(event, nullptr);
  const auto waiting = stream == 2 ? cudaStreamPerThread : reinterpret_cast<cudaStream_t>(stream);
  const int error = cudaStreamWaitEvent(waiting, event, 0);
  cudaEventDestroy(event);
  check_cuda("boxops", error);
}

#else

[[noreturn]] static void none() { throw std::runtime_error("boxops: expected a build with CUDA, got one without"); }
DeviceScope::DeviceScope(Device) { none(); }
DeviceScope::~DeviceScope() = default;
void check_cuda(const char*, int) { none(); }
void copy_to_host(const char*, void*, const void*, size_t, void*) { none(); }
void copy_on_device(const char*, void*, const void*, size_t, void*) { none(); }
std::shared_ptr<void> cuda_allocate(Device, int64_t) { none(); }
void cuda_stream_waits(Device, int64_t) { none(); }

#endif

}  // namespace boxops
