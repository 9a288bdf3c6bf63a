// Memory, streams and device queries.
#include <cstdlib>
#include <cstring>

#include "engine/watch.h"

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (bytes <= PTRDIFF_MAX && posix_memalign(pointer, 256, bytes) != 0) *pointer = nullptr;
  if (*pointer == nullptr) return cudaErrorMemoryAllocation;
  memset(*pointer, 0x7e, bytes);  // as shared memory: whoever reads it unwritten gets noise
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  free(pointer);
  return cudaSuccess;
}
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t) { return cudaMalloc(pointer, bytes); }
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) { return cudaFree(pointer); }

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (bytes > 0) memmove(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  cuda_emulator::count_operations("cudaMemcpyAsync", 1);
  return cudaMemcpy(to, from, bytes, kind);
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  if (bytes > 0) memset(to, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  cuda_emulator::count_operations("cudaMemsetAsync", 1);
  return cudaMemset(to, value, bytes);
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 11040;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 12090;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 << 10; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = 4; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 8; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 << 10; break;
    default: return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

namespace cuda_emulator {

void count_operations(const char* name, int count) {
  if constexpr (kWatched) watcher->operations(name, count);
}

// What a kernel is compiled for: BOXOPS_EMULATOR_PTX, else one that has clusters.
cudaError_t get_attributes(cudaFuncAttributes* attributes) {
  const char* version = getenv("BOXOPS_EMULATOR_PTX");
  attributes->ptxVersion = version == nullptr ? 90 : atoi(version);
  return cudaSuccess;
}

cudaError_t occupancy(int* blocks, int threads, size_t dynamic_shared_bytes) {
  if (threads <= 0 || threads > 1024) return cudaErrorInvalidValue;
  *blocks = 2048 / threads;
  if (dynamic_shared_bytes > 0 && (227u << 10) / dynamic_shared_bytes < static_cast<size_t>(*blocks))
    *blocks = static_cast<int>((227u << 10) / dynamic_shared_bytes);
  return cudaSuccess;
}

}  // namespace cuda_emulator

// Streams and events need only be there: a launch is over when it returns.
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = nullptr;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
