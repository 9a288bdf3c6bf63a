// The state of the launch under way. One launch runs at a time (launch.cpp holds a lock), one cluster of blocks
// of it at a time (mostly of one block), one thread of that at a time: those of a block until all wait for the cluster.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "engine/fiber.h"

namespace cuda_emulator {

#ifdef CUDA_EMULATOR_WATCHED
constexpr bool kWatched = true;
#else
constexpr bool kWatched = false;
#endif

// SplitMix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint32_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return static_cast<uint32_t>((z ^ (z >> 31)) >> 32);
  }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(static_cast<uint64_t>(next()) * n >> 32); }
  // A member of a set of 32 that is not empty.
  unsigned member(unsigned set) {
    const unsigned turn = next() & 31, turned = set >> turn | set << (-turn & 31);
    return (static_cast<unsigned>(__builtin_ctz(turned)) + turn) & 31;
  }

 private:
  uint64_t state_;
};

constexpr uint32_t kMostInCluster = 8;  // blocks

struct Launch {
  cudaLaunchConfig_t config;
  uint32_t cluster;  // blocks
  const void* kernel;
  void (*call)(void*);
  void* arguments;
  size_t bytes_of_arguments;
  uint64_t seed;
  Random random;
  std::string failure;  // the report, once something went wrong
};

struct Thread {
  unsigned number, warp, lane;
  uint3 index;
  Fiber* fiber = nullptr;
  const char* waits_at = nullptr;  // a barrier or warp intrinsic; null while the thread can run
  unsigned mask = 0;               // of that intrinsic
  Place place = {};
  bool left = false;
  // For the race detector (race.cpp).
  uint32_t interval = 0;  // its accesses since it last synchronised; 0 before the first
  uint32_t acquired = 0;  // intervals before this one are over, an atomic told it
  bool fenced = false;    // it has written nothing to global memory since its last fence
};

// Lanes that wait for each other at one warp intrinsic, and then read each other's values.
struct Meeting {
  const char* name;
  unsigned mask, arrived, unread;
  Lanes lanes;
  bool open() const { return unread == 0; }
};

// The unsigned members are sets of lanes.
struct Warp {
  unsigned present, left, ready;
  unsigned meetings;  // those in use
  Meeting meeting[32];
};

class Block {
 public:
  Block(Launch& launch, uint32_t rank);
  // Begins the block of that number in the grid.
  void begin(uint32_t number);
  // Goes on until all threads have left, or those that are there wait for the cluster; false if it failed.
  bool run();
  bool waits_for_cluster() const { return cluster_waiting_ > 0; }
  void leave_cluster_barrier();

  int barrier(const char* name, bool predicate, Place place);
  void cluster_barrier(Place place);
  Lanes meet(const char* name, unsigned mask, uint64_t value, Place place);
  void yield();

  Launch& launch;
  const uint32_t rank;    // in its cluster
  uint32_t number = 0;    // of the block in the grid
  uint32_t barriers = 0;  // block-wide barriers passed
  std::vector<Thread> threads;
  std::vector<Warp> warps;

 private:
  Thread* pick();
  void resume(Thread& thread);
  void suspend(Thread& thread, const char* at, unsigned mask, Place place);
  void wake(unsigned warp, unsigned lanes);
  void leave(Thread& thread);
  std::string stuck() const;
  static void thread_main();

  unsigned ready_warps_ = 0, last_warp_ = 0, left_ = 0, cluster_waiting_ = 0;
  bool by_warp_ = false;
  struct {
    const char* name;
    Place place;
    unsigned waiting, count;
    const Thread* first;
  } barrier_ = {};
  int barrier_result_ = 0;
};

// The thread that runs, null in host code and in the scheduler; the block that it belongs to.
extern thread_local Thread* current __attribute__((tls_model("initial-exec")));
extern Block* block;
extern Fibers fibers;

void set_dimensions(dim3 grid, dim3 block);
void set_block_index(uint3 index);
void set_thread_index(uint3 index);

// Shared memory of the block: the kernels' static variables, and the dynamic part.
bool is_shared(const void* address);
void* dynamic_shared();

}  // namespace cuda_emulator
