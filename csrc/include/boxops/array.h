// What an op sees of any framework's array, and what it asks of the framework.
//
// An op is written once, against Array and Framework; torch_ops/, pybind/ and any other binding
// only translate their arrays. To bind another framework, implement Framework and make Arrays.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

// A wrong value, shape or dtype. Bindings turn it into a ValueError.
struct Error : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

enum class DeviceType : int { kCPU, kCUDA };  // as wide as the index: copied as one, it must be stored as one

struct Device {
  DeviceType type = DeviceType::kCPU;
  int index = 0;
  bool operator==(const Device& o) const { return type == o.type && (type == DeviceType::kCPU || index == o.index); }
};

constexpr int kMaxRank = 16;

// A short list of sizes or strides; negative places count from the end. Values beyond kMaxRank are
// counted but not held: the checks of every op refuse such arrays first.
struct Dims {
  int count = 0;
  int64_t values[kMaxRank];  // the first `count`

  Dims() {}
  Dims(const Dims& o) { *this = o; }
  Dims& operator=(const Dims& o) { return assign(o.values, o.count); }
  // One by one: a vector load of what was stored singly just before waits for the stores, as long as a small op takes.
  template <class Int>
  Dims& assign(const Int* from, int n) {
    count = n;
    for (int i = 0; i != count && i != kMaxRank; ++i) values[i] = from[i];
    return *this;
  }
  Dims(std::initializer_list<int64_t> list) {
    for (const int64_t v : list) push_back(v);
  }
  void push_back(int64_t v) {
    if (count < kMaxRank) values[count] = v;
    ++count;
  }
  int64_t operator[](int i) const { return values[i < 0 ? count + i : i]; }
  int64_t product() const {
    int64_t p = 1;
    for (int i = 0; i < count; ++i) p *= values[i];
    return p;
  }
  // All but the last `drop`.
  Dims head(int drop) const {
    Dims d;
    for (int i = 0; i + drop < count; ++i) d.push_back(values[i]);
    return d;
  }
  bool operator==(const Dims& o) const {
    return count == o.count && count <= kMaxRank && std::equal(values, values + count, o.values);
  }
};

// The strides of a contiguous array.
inline Dims compact_strides(const Dims& sizes) {
  Dims strides = sizes;
  int64_t stride = 1;
  for (int i = sizes.count - 1; i >= 0; --i) strides.values[i] = stride, stride *= sizes[i] > 1 ? sizes[i] : 1;
  return strides;
}

// A view of an array with a share in what keeps it alive. Strides count elements.
struct Array {
  void* data = nullptr;
  DType dtype = DType::kOther;
  Device device;
  Dims sizes, strides;
  std::shared_ptr<void> owner;

  int rank() const { return sizes.count; }
  int64_t numel() const { return sizes.product(); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// boxes [N, 4] or [N, 5] as one batch, or [B, N, 4].
inline Boxes boxes_of(const Array& boxes, Format format = Format::kXYXY) {
  const bool batched = boxes.rank() == 3;
  return {boxes.data,
          boxes.dtype,
          format,
          batched ? boxes.sizes[0] : 1,
          boxes.sizes[-2],
          batched ? boxes.strides[0] : 0,
          boxes.strides[-2],
          boxes.strides[-1]};
}

// [N] or [B, N] numbers; bools count as 0 and 1.
inline Scalars scalars_of(const Array& scalars) {
  return {scalars.data, number_type(scalars.dtype), scalars.rank() > 1 ? scalars.strides[0] : 0, scalars.strides[-1]};
}

class Framework {
 public:
  virtual ~Framework() = default;
  // A new contiguous array, not initialised.
  virtual Array empty(const Dims& sizes, DType dtype, Device device) = 0;
  // The threads that CPU work runs on.
  virtual const Parallel& parallel() = 0;
  // The cudaStream_t that work on this device belongs on.
  virtual void* stream(Device device) = 0;
};

}  // namespace boxops
