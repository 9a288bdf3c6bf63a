// Threads come from the caller: a core function takes a `const Parallel&` and never makes a thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <type_traits>

namespace boxops {

// A borrowed reference to a callable void(int64_t begin, int64_t end); costs no allocation.
class Range {
 public:
  template <class F, class = std::enable_if_t<!std::is_same_v<std::decay_t<F>, Range>>>
  Range(F&& f)  // NOLINT: implicit, so that a lambda can be passed
      : object_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* object, int64_t begin, int64_t end) {
          (*static_cast<std::remove_reference_t<F>*>(object))(begin, end);
        }) {}
  void operator()(int64_t begin, int64_t end) const { call_(object_, begin, end); }

 private:
  void* object_;
  void (*call_)(void*, int64_t, int64_t);
};

constexpr double kWakeNs = 100e3;  // torch's pool asleep: 30 to 110 us; a thread started: 20 to 50 us

// The caller's threads. A subclass gives `run`; kernels call `share`, the one place that decides whether threads pay.
class Parallel {
 public:
  // `wake_ns`: about what it costs to wake a thread and to wait for it. 0: threads always pay.
  explicit Parallel(double wake_ns = kWakeNs) : wake_ns_(wake_ns) {}
  virtual ~Parallel() = default;

  // Covers [0, n) with disjoint ranges, possibly at once, and returns when all are done. A range of fewer than `grain`
  // items is not worth a thread of its own. Where the body throws, ranges may be left out, and one exception comes out
  // of `run` when no thread works any more.
  virtual void run(int64_t n, int64_t grain, Range body) const = 0;

  // As run, for items that take about `item_ns` nanoseconds each on one core. Threads must gain twice what waking them
  // costs: two of them save half of the work, so each is given at least two wake-ups of it. Costs are rough, of float32
  // and of typical input; where items differ, their mean. Not inlined: a kernel's loop is then compiled once, for
  // ranges.
  __attribute__((noinline)) void share(int64_t n, double item_ns, Range body) const {
    const double total = item_ns * static_cast<double>(n), least = 2 * wake_ns_;
    if (n < 2 || total < 2 * least) {
      if (n > 0) body(0, n);
    } else {
      run(n, least < total ? std::max<int64_t>(1, static_cast<int64_t>(least / item_ns)) : n, body);
    }
  }

 private:
  double wake_ns_;
};

// Brings an exception from several threads to the one that waits for them.
class OneException {
 public:
  template <class F>
  void run(F&& f) noexcept {
    try {
      f();
    } catch (...) {
      if (!taken_.test_and_set()) exception_ = std::current_exception();
    }
  }
  // When the threads are done.
  void rethrow() const {
    if (exception_) std::rethrow_exception(exception_);
  }

 private:
  std::atomic_flag taken_ = ATOMIC_FLAG_INIT;
  std::exception_ptr exception_;
};

// No threads but the caller's own.
class Serial final : public Parallel {
 public:
  void run(int64_t n, int64_t, Range body) const override {
    if (n > 0) body(0, n);
  }
};

}  // namespace boxops
