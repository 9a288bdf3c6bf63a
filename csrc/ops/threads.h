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

// The ranges of one call. Each worker has a part of its own, the same in the next call, and takes half
// of what is left of it at a time; then it helps the others, so that uneven work evens out, and what a worker that
// starts late does not take is done.
class Ranges {
 public:
  Ranges(int64_t n, int64_t workers, Range body)
      : step_(std::max<int64_t>(1, n / (workers * 8))), body_(body), parts_(static_cast<size_t>(workers)) {
    for (int64_t w = 0; w < workers; ++w) parts_[w].next = n / workers * w, parts_[w].end = n / workers * (w + 1);
    parts_.back().end = n;
  }

  void work(int64_t worker) noexcept {
    try {
      for (size_t i = 0; i < parts_.size(); ++i) {
        Part& part = parts_[(static_cast<size_t>(worker) + i) % parts_.size()];
        for (int64_t begin = part.next, end; begin < part.end;) {
          end = std::min(part.end, begin + std::max(step_, (part.end - begin) / 2));
          if (!part.next.compare_exchange_weak(begin, end)) continue;
          body_(begin, end);
          begin = part.next;
        }
      }
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
  }
  // When all workers are done: throws what one of them threw, memory that is not to be had for example.
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  struct alignas(64) Part {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  const int64_t step_;
  const Range body_;
  std::vector<Part> parts_;
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
      for (int64_t i = 1; i < workers; ++i) others.emplace_back([&ranges, i] { ranges.work(i); });
    } catch (const std::system_error&) {
      // No more threads to be had; those that run, and this one, do the work.
    }
    ranges.work(0);
    for (std::thread& t : others) t.join();
    ranges.rethrow();
  }

 private:
  int64_t (*count_)();
};

}  // namespace boxops
