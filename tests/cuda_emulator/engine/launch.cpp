// One launch: checks what CUDA checks, then runs the clusters of blocks in a shuffled order.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <numeric>
#include <set>

#include "engine/engine.h"
#include "engine/report.h"
#include "engine/watch.h"

// The static shared variables of all kernels, gathered by shared_memory.ld.
extern "C" char cuda_emulator_shared_begin[], cuda_emulator_shared_end[];

namespace cuda_emulator {
namespace {

constexpr size_t kSharedPerBlock = 48 << 10, kSharedOptIn = 227 << 10;
constexpr unsigned char kPoison = 0x7e;  // as a float 8e37, as an int two thousand million

std::mutex one_launch;
std::map<const void*, size_t> dynamic_limits;
thread_local std::string last_failure;
thread_local cudaError_t last_error = cudaSuccess;
char* dynamic_memory = nullptr;  // of the block that runs
size_t dynamic_size = 0;

// AddressSanitizer's red zones lie between the variables; volatile keeps the loops from becoming
// calls of memcpy, which it watches. They call nothing: what it instruments is not inlined into what it does not.
#define CROSSES_RED_ZONES __attribute__((no_sanitize("address")))

volatile uint64_t* const static_words = reinterpret_cast<uint64_t*>(cuda_emulator_shared_begin);

size_t count_of_words() { return static_cast<size_t>(cuda_emulator_shared_end - cuda_emulator_shared_begin) / 8; }

CROSSES_RED_ZONES void copy_statics(uint64_t* to) {
  for (size_t i = 0, n = count_of_words(); i < n; ++i) to[i] = static_words[i];
}

CROSSES_RED_ZONES void restore_statics(const uint64_t* from) {
  for (size_t i = 0, n = count_of_words(); i < n; ++i) static_words[i] = from[i];
}

// Whether any of these words was written.
CROSSES_RED_ZONES bool poison_words(size_t begin, size_t end) {
  constexpr uint64_t poison = kPoison * 0x0101010101010101;
  bool written = false;
  for (size_t i = begin; i < end; ++i) {
    written |= static_words[i] != poison;
    static_words[i] = poison;
  }
  return written;
}

// The static shared variables during a launch, poisoned for each block. There are megabytes of them, of which a kernel
// writes a few pages: between blocks those that it is known to write are poisoned, after a launch what else it wrote
// (blocks of that one launch find there what others left; the race build reports such reads by itself).
// The section also holds local statics of host functions in .cu files: a launch gives them back.
class Statics {
 public:
  void begin(const void* kernel) {
    is_new_ = written_by_.count(kernel) == 0;
    written_ = &written_by_[kernel];
    saved_.resize(count_of_words());
    copy_statics(saved_.data());
    poison_words(0, saved_.size());
  }

  void poison() {
    if (is_new_) return find_written();
    for (const size_t page : *written_) poison_page(page);
  }

  void end() {
    find_written();
    restore_statics(saved_.data());
  }

 private:
  bool poison_page(size_t page) { return poison_words(page, std::min(page + kPage, saved_.size())); }

  void find_written() {
    for (size_t page = 0; page < saved_.size(); page += kPage)
      if (poison_page(page)) written_->insert(page);
  }

  static constexpr size_t kPage = 64;  // words

  std::map<const void*, std::set<size_t>> written_by_;  // by kernel
  std::set<size_t>* written_ = nullptr;
  bool is_new_ = false;
  std::vector<uint64_t> saved_;
};

Statics statics;

uint64_t seed_of_environment() {
  const char* seed = getenv("BOXOPS_EMULATOR_SEED");
  return seed == nullptr ? 1 : strtoull(seed, nullptr, 0);
}

// 0: none that CUDA takes.
uint32_t cluster_of(const cudaLaunchConfig_t& config) {
  uint32_t size = 1;
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const auto& cluster = config.attrs[i].val.clusterDim;
    const bool along_x = cluster.y == 1 && cluster.z == 1 && cluster.x >= 1 && cluster.x <= kMostInCluster;
    size = along_x && config.gridDim.x % cluster.x == 0 ? cluster.x : 0;
  }
  return size;
}

cudaError_t check(const cudaLaunchConfig_t& config, const void* kernel) {
  if (const char* error = getenv("BOXOPS_EMULATOR_ERROR")) return static_cast<cudaError_t>(atoi(error));
  const dim3 grid = config.gridDim, threads = config.blockDim;
  const uint64_t count = uint64_t(threads.x) * threads.y * threads.z;
  if (threads.x > 1024 || threads.y > 1024 || threads.z > 64 || count == 0 || count > 1024)
    return cudaErrorInvalidConfiguration;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaErrorInvalidConfiguration;
  if (grid.x > 0x7fffffff || grid.y > 0xffff || grid.z > 0xffff) return cudaErrorInvalidConfiguration;
  if (cluster_of(config) == 0) return cudaErrorInvalidConfiguration;
  const auto limit = dynamic_limits.find(kernel);
  if (config.dynamicSmemBytes > (limit == dynamic_limits.end() ? kSharedPerBlock : limit->second))
    return cudaErrorInvalidValue;
  return cudaSuccess;
}

template <class T>
void shuffle(std::vector<T>& values, Random& random) {
  for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.below(static_cast<uint32_t>(i))]);
}

// The blocks of a cluster, which take turns: each runs until its threads have left or wait for the cluster.
class Cluster {
 public:
  explicit Cluster(Launch& launch) : launch_(launch), dynamic_(launch.cluster * dynamic_size) {
    for (uint32_t rank = 0; rank < launch.cluster; ++rank) blocks_.emplace_back(launch, rank);
    block = &blocks_.front();  // watchers ask it for the launch
  }

  // False if a block failed.
  bool run(uint32_t first) {
    std::fill(dynamic_.begin(), dynamic_.end(), kPoison);
    std::vector<Block*> left;
    for (Block& b : blocks_) b.begin(first + b.rank), left.push_back(&b);
    if constexpr (kWatched) watcher->begin_cluster();
    for (bool begins = true; !left.empty(); begins = false) {
      shuffle(left, launch_.random);
      for (Block* b : left) {
        enter(*b, begins);
        if (kWatched && begins) watcher->begin_block();
        if (!b->run()) return false;
        if constexpr (kWatched) b->waits_for_cluster() ? watcher->wait_for_cluster() : watcher->end_block();
        if (blocks_.size() > 1) {
          statics_[b->rank].resize(count_of_words());
          copy_statics(statics_[b->rank].data());
        }
      }
      left.erase(std::remove_if(left.begin(), left.end(), [](const Block* b) { return !b->waits_for_cluster(); }),
                 left.end());
      if (kWatched && !left.empty()) watcher->cluster_barrier();
      for (Block* b : left) b->leave_cluster_barrier();
    }
    return true;
  }

 private:
  void enter(Block& b, bool begins) {
    const dim3 grid = launch_.config.gridDim;
    block = &b;
    set_block_index({b.number % grid.x, b.number / grid.x % grid.y, b.number / grid.x / grid.y});
    begins ? statics.poison() : restore_statics(statics_[b.rank].data());
    dynamic_memory = dynamic_.data() + b.rank * dynamic_size;
  }

  Launch& launch_;
  std::deque<Block> blocks_;
  std::vector<char> dynamic_;
  std::vector<uint64_t> statics_[kMostInCluster];
};

bool run(Launch& launch) {
  const dim3 grid = launch.config.gridDim;
  set_dimensions(grid, launch.config.blockDim);
  std::vector<uint32_t> order(size_t(grid.x) * grid.y * grid.z / launch.cluster);
  std::iota(order.begin(), order.end(), 0);
  shuffle(order, launch.random);

  Cluster cluster(launch);
  if constexpr (kWatched) watcher->begin_launch();
  for (const uint32_t number : order)
    if (!cluster.run(number * launch.cluster)) return false;
  if constexpr (kWatched) watcher->end_launch();
  return true;
}

}  // namespace

bool is_shared(const void* address) {
  const char* at = static_cast<const char*>(address);
  return (at >= cuda_emulator_shared_begin && at < cuda_emulator_shared_end) ||
         static_cast<size_t>(at - dynamic_memory) < dynamic_size;
}

void* dynamic_shared() { return dynamic_memory; }

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, void (*call)(void*), void* arguments,
                   size_t bytes_of_arguments) {
  std::lock_guard<std::mutex> lock(one_launch);
  if (const cudaError_t error = check(config, kernel)) return last_error = error;
  const uint64_t seed = seed_of_environment();
  Launch launch = {config, cluster_of(config), kernel, call, arguments, bytes_of_arguments, seed, Random(seed), {}};
  dynamic_size = config.dynamicSmemBytes;
  statics.begin(kernel);
  const bool good = run(launch);
  statics.end();
  dynamic_size = 0;
  block = nullptr;
  if (good) return cudaSuccess;
  last_failure = launch.failure;
  return last_error = cudaErrorLaunchFailure;
}

cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > kSharedOptIn) return last_error = cudaErrorInvalidValue;
  std::lock_guard<std::mutex> lock(one_launch);
  dynamic_limits[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

}  // namespace cuda_emulator

cudaError_t cudaPeekAtLastError() { return cuda_emulator::last_error; }

cudaError_t cudaGetLastError() {
  const cudaError_t error = cuda_emulator::last_error;
  cuda_emulator::last_error = cudaSuccess;
  return error;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorInvalidDeviceFunction: return "cudaErrorInvalidDeviceFunction";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorNoKernelImageForDevice: return "cudaErrorNoKernelImageForDevice";
    case cudaErrorUnsupportedPtxVersion: return "cudaErrorUnsupportedPtxVersion";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? cuda_emulator::last_failure.c_str() : cudaGetErrorName(error);
}
