// What the bindings' threads have in common.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <system_error>
#include <thread>
#include <vector>

#include <boxops/parallel.h>
#include <boxops/portability.h>

namespace boxops {

// BOXOPS_WAKE_US, what waking a thread counts as, in microseconds: more where cores are busy, 0 for threads everywhere.
inline double wake_ns() {
  const char* asked = std::getenv("BOXOPS_WAKE_US");
  return asked && *asked ? std::max(0.0, std::atof(asked)) * 1e3 : kWakeNs;
}

// Threads that live for one call. Starting one costs some 20 us; in return nothing survives that fork or exit could
// harm.
class OwnThreads final : public Parallel {
 public:
  explicit OwnThreads(int64_t (*count)())
      : Parallel(wake_ns()), count_(count) {}  // the most threads, asked at each call

  void run(int64_t n, int64_t grain, Range body) const override {
    const int64_t workers = std::min(count_(), n / std::max<int64_t>(1, grain));
    // Ranges are handed out as threads ask for them, so that uneven work evens out.
    const int64_t step = std::max<int64_t>(1, n / (std::max<int64_t>(1, workers) * 8));
    std::atomic<int64_t> next{0};
    OneException exception;
    const auto work = [&] {
      exception.run([&] {
        for (int64_t begin; (begin = next.fetch_add(step)) < n;) body(begin, std::min(begin + step, n));
      });
    };
    std::vector<std::thread> others;
    others.reserve(static_cast<size_t>(std::max<int64_t>(0, workers - 1)));
    try {
      for (int64_t i = 1; i < workers; ++i) others.emplace_back(work);
    } catch (const std::system_error&) {
      // No more threads to be had; those that run, and this one, do the work.
    }
    work();
    for (std::thread& t : others) t.join();
    exception.rethrow();
  }

 private:
  int64_t (*count_)();
};

// The threads of NumPy and of C: BOXOPS_NUM_THREADS of them, by default one per core that the process may use.
BOXOPS_API const Parallel& own_threads();
BOXOPS_API void set_num_threads(int64_t n);
BOXOPS_API int64_t num_threads();

}  // namespace boxops
