// What -fsanitize=thread and -fsanitize-coverage=trace-pc call. Kernels are compiled with them but not linked with a
// runtime of theirs: these functions take its place, and tell the watcher of this process.
#include <cstddef>
#include <cstdlib>

#include "engine/watch.h"

namespace cuda_emulator {
namespace {

Watcher* choose() {
  const char* file = getenv("BOXOPS_EMULATOR_COUNTERS");
  return file != nullptr ? counters(file) : race_detection();
}

bool within(const void* address, const void* object, size_t size) {
  return static_cast<size_t>(static_cast<const char*>(address) - static_cast<const char*>(object)) < size;
}

// Host code is not watched, nor what no device has in memory: a thread's stack, the kernel's parameters, the
// dimensions.
void access(const void* address, size_t size, Kind kind, const void* caller) {
  if (current == nullptr || fibers.own(address) ||
      within(address, block->launch.arguments, block->launch.bytes_of_arguments) ||
      within(address, &blockDim, sizeof(blockDim)) || within(address, &gridDim, sizeof(gridDim)))
    return;
  watcher->access(address, size, kind, caller);
}

}  // namespace

Watcher* const watcher = choose();

}  // namespace cuda_emulator

using namespace cuda_emulator;

#define ACCESS(name, kind, size) \
  extern "C" void __tsan_##name(void* address) { access(address, size, kind, __builtin_return_address(0)); }

#define ACCESSES(size)                                       \
  ACCESS(read##size, Kind::kRead, size)                      \
  ACCESS(write##size, Kind::kWrite, size)                    \
  ACCESS(unaligned_read##size, Kind::kRead, size)            \
  ACCESS(unaligned_write##size, Kind::kWrite, size)          \
  /* CUDA's volatile accesses are relaxed atomics. */        \
  ACCESS(volatile_read##size, Kind::kAtomic, size)           \
  ACCESS(volatile_write##size, Kind::kAtomic, size)          \
  ACCESS(unaligned_volatile_read##size, Kind::kAtomic, size) \
  ACCESS(unaligned_volatile_write##size, Kind::kAtomic, size)

ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

extern "C" {

void __tsan_read_range(void* address, size_t size) { access(address, size, Kind::kRead, __builtin_return_address(0)); }
void __tsan_write_range(void* address, size_t size) {
  access(address, size, Kind::kWrite, __builtin_return_address(0));
}

void __sanitizer_cov_trace_pc() {
  if (current != nullptr) watcher->basic_block(__builtin_return_address(0));
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

}  // extern "C"

// Host functions of .cu files may use std::atomic: done, and not looked at.
#define ATOMIC_UPDATE(bits, type, name, builtin)                                 \
  extern "C" type __tsan_atomic##bits##_##name(type* address, type value, int) { \
    return builtin(address, value, __ATOMIC_SEQ_CST);                            \
  }
#define ATOMICS(bits, type)                                                                                            \
  extern "C" type __tsan_atomic##bits##_load(type* address, int) {                                                     \
    return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                                                 \
  }                                                                                                                    \
  extern "C" void __tsan_atomic##bits##_store(type* address, type value, int) {                                        \
    __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                                                \
  }                                                                                                                    \
  extern "C" bool __tsan_atomic##bits##_compare_exchange_strong(type* address, type* expected, type value, int, int) { \
    return __atomic_compare_exchange_n(address, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);           \
  }                                                                                                                    \
  ATOMIC_UPDATE(bits, type, exchange, __atomic_exchange_n)                                                             \
  ATOMIC_UPDATE(bits, type, fetch_add, __atomic_fetch_add)                                                             \
  ATOMIC_UPDATE(bits, type, fetch_sub, __atomic_fetch_sub)                                                             \
  ATOMIC_UPDATE(bits, type, fetch_and, __atomic_fetch_and)                                                             \
  ATOMIC_UPDATE(bits, type, fetch_or, __atomic_fetch_or)

ATOMICS(8, unsigned char)
ATOMICS(16, unsigned short)
ATOMICS(32, unsigned)
ATOMICS(64, unsigned long)
