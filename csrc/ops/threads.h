// What the bindings' threads have in common.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

#include "common/parallel.h"

namespace boxops {

// BOXOPS_WAKE_US, what waking a thread counts as, in microseconds: more where cores are busy, 0 for threads everywhere.
inline double wake_ns() {
  const char* asked = std::getenv("BOXOPS_WAKE_US");
  return asked && *asked ? std::max(0.0, std::atof(asked)) * 1e3 : kWakeNs;
}

// The ranges of one call, handed out as workers ask for them, so that uneven work evens out and what a worker that
// starts late does not take is done by the others.
class Ranges {
 public:
  Ranges(int64_t n, int64_t workers, Range body) : n_(n), step_(std::max<int64_t>(1, n / (workers * 8))), body_(body) {}

  void work() noexcept {
    try {
      for (int64_t begin; (begin = next_.fetch_add(step_)) < n_;) body_(begin, std::min(begin + step_, n_));
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
  }
  // When all workers are done: throws what one of them threw, memory that is not to be had for example.
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const int64_t n_, step_;
  const Range body_;
  std::atomic<int64_t> next_{0};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
};

// Threads that live for one call. Starting one costs some 20 us; in return nothing survives that fork or exit could
// harm.
class OwnThreads final : public Parallel {
 public:
  explicit OwnThreads(int64_t (*count)())
      : Parallel(wake_ns()), count_(count) {}  // the most threads, asked at each call

  void run(int64_t n, int64_t grain, Range body) const override {
    const int64_t workers = std::min(count_(), n / std::max<int64_t>(1, grain));
    Ranges ranges(n, std::max<int64_t>(1, workers), body);
    std::vector<std::thread> others;
    others.reserve(std::max<int64_t>(0, workers - 1));
    try {
      for (int64_t i = 1; i < workers; ++i) others.emplace_back([&] { ranges.work(); });
    } catch (const std::system_error&) {
      // No more threads to be had; those that run, and this one, do the work.
    }
    ranges.work();
    for (std::thread& t : others) t.join();
    ranges.rethrow();
  }

 private:
  int64_t (*count_)();
};

}  // namespace boxops
