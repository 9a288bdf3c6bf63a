// Memory for the time of a call: on the stack where it is little, since an allocation takes as long as a small op.
#pragma once

#include <cstddef>
#include <memory>

namespace boxops {

// n values, not initialised.
template <class T, size_t few_bytes = 1024>
class Scratch {
 public:
  explicit Scratch(int64_t n)
      : many_(static_cast<size_t>(n) > kFew ? new T[static_cast<size_t>(n)] : nullptr),
        data_(many_ ? many_.get() : few_) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() { return data_; }
  T& operator[](int64_t i) { return data_[i]; }

 private:
  static constexpr size_t kFew = few_bytes / sizeof(T);

  T few_[kFew];
  std::unique_ptr<T[]> many_;
  T* data_;
};

}  // namespace boxops
