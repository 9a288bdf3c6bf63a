#include <boxops/memory.h>

#include <cstdio>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#include <sys/sysinfo.h>
#endif

#include "ops/check.h"
#include "ops/cuda_runtime.h"

namespace boxops {
namespace {

int64_t machine_memory() {
#ifdef __linux__
  struct sysinfo info;
  if (sysinfo(&info) == 0) return static_cast<int64_t>((info.totalram + info.totalswap) * info.mem_unit);
#endif
  return INT64_MAX;
}

std::shared_ptr<void> host_allocate(int64_t bytes) {
  constexpr std::align_val_t alignment{64};
  void* data = ::operator new(static_cast<size_t>(bytes), alignment);
  use_large_pages(data, bytes);
  return std::shared_ptr<void>(data, [](void* p) { ::operator delete(p, alignment); });
}

}  // namespace

NoMemory::NoMemory(const Dims& sizes, DType dtype, Device device) {
  double bytes = static_cast<double>(size_of(dtype));
  for (int i = 0; i < sizes.count; ++i) bytes *= static_cast<double>(sizes[i]);
  char size[32];
  std::snprintf(size, sizeof(size), "%.4g GB", bytes / 1e9);
  array_ = to_string(sizes) + " " + name_of(dtype) + " (" + size + ") on " + to_string(device);
}

int64_t bytes_of(const Dims& sizes, DType dtype, Device device) {
  int64_t bytes = size_of(dtype);
  bool is_empty = false, fits = true;
  for (int i = 0; i < sizes.count; ++i) {
    is_empty |= sizes[i] == 0;
    fits &= !__builtin_mul_overflow(bytes, sizes[i], &bytes);
  }
  if (is_empty) return 0;
  constexpr int64_t kLooked = int64_t(1) << 30;  // below, asking would cost more than it is worth
  if (!fits || (device.type == DeviceType::kCPU && bytes > kLooked && bytes > machine_memory()))
    throw NoMemory(sizes, dtype, device);
  return bytes;
}

void use_large_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#ifdef __linux__
  constexpr uintptr_t kLarge = 2 << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kLarge - 1) & ~(kLarge - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) & ~(kLarge - 1);
  if (bytes >= 2 * int64_t(kLarge) && end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

Array allocate(const Dims& sizes, DType dtype, Device device, void* stream, std::shared_ptr<void> keeps_stream) {
  const int64_t bytes = bytes_of(sizes, dtype, device);
  Array a;
  a.dtype = dtype, a.device = device, a.sizes = sizes, a.strides = compact_strides(sizes);
  try {
    a.owner = device.type == DeviceType::kCPU ? host_allocate(bytes)
                                              : cuda_allocate(device, bytes, stream, std::move(keeps_stream));
  } catch (const std::bad_alloc&) {
    throw NoMemory(sizes, dtype, device);
  }
  a.data = a.owner.get();
  return a;
}

}  // namespace boxops
