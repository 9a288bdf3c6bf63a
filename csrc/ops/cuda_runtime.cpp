#include "ops/cuda_runtime.h"

#include <new>
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

namespace {

// "12.4" of 12040.
std::string cuda_version(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// A runtime runs with the drivers of its whole major version.
std::string driver_too_old() {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);  // 0: there is none
  cudaRuntimeGetVersion(&runtime);
  return "expected an NVIDIA driver for CUDA " + std::to_string(runtime / 1000) + ".0 or newer, got " +
         (driver > 0 ? "one for CUDA " + cuda_version(driver) : "none") +
         ": install a newer driver, or build boxops with an older CUDA (it was built with " + cuda_version(runtime) +
         ")";
}

std::string no_kernel_for_gpu() {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  const std::string arch = std::to_string(10 * major + minor);
  return "expected a GPU of an architecture that boxops was built for (" BOXOPS_CUDA_ARCHS_BUILT "), got " + arch +
         ": build it with BOXOPS_CUDA_ARCHS=" + arch;
}

}  // namespace

void check_cuda(const char* op, int error) {
  if (error == cudaSuccess) return;
  const auto e = static_cast<cudaError_t>(error);
  cudaGetLastError();  // so that CUB does not find it in the next call
  if (e == cudaErrorInsufficientDriver) throw std::runtime_error(op + (": " + driver_too_old()));
  if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorInvalidDeviceFunction ||
      e == cudaErrorUnsupportedPtxVersion)
    throw std::runtime_error(op + (": " + no_kernel_for_gpu()));
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

std::shared_ptr<void> cuda_allocate(Device device, int64_t bytes, void* stream, std::shared_ptr<void> keeps_stream) {
  const DeviceScope scope(device);
  void* data = nullptr;
  const auto s = static_cast<cudaStream_t>(stream);
  const cudaError_t error = cudaMallocAsync(&data, static_cast<size_t>(bytes > 0 ? bytes : 1), s);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // so that no later call finds it
    throw std::bad_alloc();
  }
  check_cuda("boxops", error);
  return std::shared_ptr<void>(data, [device, s, keeps_stream](void* p) {
    const DeviceScope on(device);
    cudaFreeAsync(p, s);
  });
}

void cuda_stream_waits(Device device, int64_t waiting, void* stream) {
  const auto first = static_cast<cudaStream_t>(stream);
  const auto second = waiting > 1 ? reinterpret_cast<cudaStream_t>(waiting) : nullptr;  // 1: the legacy default stream
  if (first == second) return;
  const DeviceScope scope(device);
  cudaEvent_t event;
  check_cuda("boxops", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  int error = cudaEventRecord(event, first);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(second, event, 0);
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
std::shared_ptr<void> cuda_allocate(Device, int64_t, void*, std::shared_ptr<void>) { none(); }
void cuda_stream_waits(Device, int64_t, void*) { none(); }

#endif

}  // namespace boxops
