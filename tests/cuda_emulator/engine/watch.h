// Who is told what kernels do, in builds whose kernels report every memory access and basic block (tsan_hooks.cpp):
// race detection (race.cpp), or the performance counters (counters.cpp) where BOXOPS_EMULATOR_COUNTERS is set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/engine.h"

extern "C" const char __ehdr_start[] __attribute__((visibility("hidden")));  // where this module is loaded

namespace cuda_emulator {

// What is kept of a return address.
inline uint32_t offset_in_module(const void* address) {
  return static_cast<uint32_t>(static_cast<const char*>(address) - __ehdr_start);
}

enum class Kind { kRead, kWrite, kAtomic };

class Watcher {
 public:
  virtual ~Watcher() = default;
  virtual void begin_launch() {}
  virtual void end_launch() {}
  virtual void begin_cluster() {}
  virtual void begin_block() {}
  virtual void end_block() {}

  // All threads of the block that are there wait for the cluster; all of the cluster do, and it goes on.
  virtual void wait_for_cluster() {}
  virtual void cluster_barrier() {}

  // All threads of the block have met; these lanes of a warp have, at the intrinsic of that name.
  virtual void block_barrier() {}
  virtual void meeting(const char* name, unsigned warp, unsigned lanes) = 0;

  // What the current thread does. `caller` is the return address that tells the source line.
  virtual void fence() {}
  virtual void basic_block(const void* caller) { (void)caller; }
  virtual void access(const void* address, size_t size, Kind kind, const void* caller) = 0;

  // The host put this into a stream, besides launches.
  virtual void operations(const char* name, int count) { (void)name, (void)count; }
};

extern Watcher* const watcher;
Watcher* race_detection();
Watcher* counters(const char* file);

}  // namespace cuda_emulator
