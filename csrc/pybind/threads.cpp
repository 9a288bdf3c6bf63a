#include "pybind/threads.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

namespace boxops::numpy {
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

// Threads live for one call. Starting one costs some 10 us, so only calls whose work is far above
// that ask for them (their grain says so); in return nothing survives that fork or exit could harm.
class OwnThreads final : public Parallel {
 public:
  void run(int64_t n, int64_t grain, Range body) const override {
    const int64_t workers = std::min(count().load(), (n + grain - 1) / std::max<int64_t>(1, grain));
    if (n <= 0) return;
    if (workers <= 1) return body(0, n);
    // Ranges are handed out as threads ask for them, so that uneven work evens out.
    const int64_t step = std::max(grain, n / (workers * 8));
    std::atomic<int64_t> next{0};
    OneException exception;
    const auto work = [&] {
      exception.run([&] {
        for (int64_t begin; (begin = next.fetch_add(step)) < n;) body(begin, std::min(begin + step, n));
      });
    };
    std::vector<std::thread> others;
    others.reserve(workers - 1);
    try {
      for (int64_t i = 1; i < workers; ++i) others.emplace_back(work);
    } catch (const std::system_error&) {
      // No more threads to be had; those that run, and this one, do the work.
    }
    work();
    for (std::thread& t : others) t.join();
    exception.rethrow();
  }
};

}  // namespace

const Parallel& own_threads() {
  static const OwnThreads threads;
  return threads;
}

void set_num_threads(int64_t n) { count() = std::max<int64_t>(1, n); }
int64_t num_threads() { return count(); }

}  // namespace boxops::numpy
