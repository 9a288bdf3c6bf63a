#include <boxops/threads.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace boxops {
namespace {

int64_t default_threads() {
  if (const char* asked = std::getenv("BOXOPS_NUM_THREADS")) return std::max<int64_t>(1, std::atoll(asked));
#ifdef __linux__
  cpu_set_t set;  // the cores this process may use, which in a container can be fewer than there are
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

std::atomic<int64_t>& count() {
  static std::atomic<int64_t> n{default_threads()};
  return n;
}

}  // namespace

const Parallel& own_threads() {
  static const OwnThreads threads(num_threads);
  return threads;
}

void set_num_threads(int64_t n) { count() = std::max<int64_t>(1, n); }
int64_t num_threads() { return count(); }

}  // namespace boxops
