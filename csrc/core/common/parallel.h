// Threads come from the caller: a core function takes a `const Parallel&` and never makes a thread.
#pragma once

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

// The caller's threads. `run` covers [0, n) with disjoint ranges, each of at least `grain` items
// but the last, possibly at once, and returns when all are done. Where the body throws, ranges may be left out, and
// one exception comes out of `run` when no thread works any more.
class Parallel {
 public:
  virtual ~Parallel() = default;
  virtual void run(int64_t n, int64_t grain, Range body) const = 0;
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
