// One call of an op: its name, which its errors begin with, and the framework and device that it runs on.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>

#include <boxops/array.h>
#include <boxops/types.h>
#include "common/scratch.h"
#include "ops/cuda_runtime.h"

namespace boxops {

// Throws Error("<op>: expected <what>, got <what>").
[[noreturn]] void fail(const char* op, const std::string& expected, const std::string& got);

// What Call::select returns of each output: its dtype, and the sizes of one of its rows.
struct Rows {
  DType dtype;
  Dims sizes = {};
};

class Call {
 public:
  Call(const char* op, Framework& framework, Device device) : op_(op), framework_(framework), device_(device) {}

  const char* op() const { return op_; }
  Device device() const { return device_; }
  bool on_cpu() const { return device_.type == DeviceType::kCPU; }
  [[noreturn]] void fail(const std::string& expected, const std::string& got) const {
    boxops::fail(op_, expected, got);
  }

  // A new contiguous array on the device of the call, not initialised.
  Array empty(const Dims& sizes, DType dtype) const;
  // Memory for the kernels of a statement: it lives until the statement's end.
  Array workspace(size_t bytes) const { return empty({static_cast<int64_t>(bytes)}, DType::kUInt8); }

  // Runs on_cpu(parallel), or on_cuda(stream) -> cudaError_t. on_cuda is a generic lambda, (auto stream), so that
  // nothing refers to CUDA's kernels in a build without them.
  template <class Cpu, class Cuda>
  void run(Cpu on_cpu, [[maybe_unused]] Cuda on_cuda) const {
    if (this->on_cpu()) return on_cpu(framework_.parallel());
#if BOXOPS_WITH_CUDA
    const DeviceScope scope(device_);
    check_cuda(op_, on_cuda(framework_.stream(device_)));
#else
    fail_without_cuda();
#endif
  }
  // For an op without a CUDA kernel.
  template <class Cpu>
  void run(Cpu on_cpu) const {
    if (!this->on_cpu()) fail_on_cuda();
    on_cpu(framework_.parallel());
  }

  // For outputs whose number of rows is known only afterwards, `limit` at most. on_cpu(to, parallel) writes the rows
  // of output i to to[i] and returns their number; on_cuda(to, count, stream) leaves it in count[0] on the device, and
  // the host waits for it.
  template <size_t n, class Cpu, class Cuda>
  std::array<Array, n> select(int64_t limit, const Rows (&rows)[n], Cpu on_cpu, [[maybe_unused]] Cuda on_cuda) const {
    std::array<Array, n> outputs;
    std::array<void*, n> to;
    int64_t offsets[n + 1] = {0}, count = 0;
    for (size_t i = 0; i < n; ++i) {
      const int64_t bytes = limit * rows[i].sizes.product() * size_of(rows[i].dtype);
      offsets[i + 1] = offsets[i] + (bytes + 63) / 64 * 64;
    }
    const auto take = [&](char* memory, auto copy) {
      for (size_t i = 0; i < n; ++i) {
        Dims sizes{count};
        for (int k = 0; k < rows[i].sizes.count; ++k) sizes.push_back(rows[i].sizes[k]);
        outputs[i] = empty(sizes, rows[i].dtype);
        copy(outputs[i].data, memory + offsets[i], outputs[i].numel() * size_of(rows[i].dtype));
      }
    };
    if (this->on_cpu()) {
      Scratch<std::max_align_t, 2048> memory(offsets[n] / static_cast<int64_t>(sizeof(std::max_align_t)));
      char* const begin = reinterpret_cast<char*>(memory.data());
      for (size_t i = 0; i < n; ++i) to[i] = begin + offsets[i];
      count = on_cpu(to, framework_.parallel());
      take(begin,
           [](void* out, const char* from, int64_t bytes) { std::copy_n(from, bytes, static_cast<char*>(out)); });
      return outputs;
    }
#if BOXOPS_WITH_CUDA
    const DeviceScope scope(device_);
    void* stream = framework_.stream(device_);
    const Array memory = workspace(offsets[n] + sizeof(int64_t));
    char* const begin = memory.as<char>();
    for (size_t i = 0; i < n; ++i) to[i] = begin + offsets[i];
    int64_t* const counted = reinterpret_cast<int64_t*>(begin + offsets[n]);
    check_cuda(op_, on_cuda(to, counted, stream));
    copy_to_host(op_, &count, counted, sizeof(count), stream);
    take(begin, [&](void* out, const char* from, int64_t bytes) { copy_on_device(op_, out, from, bytes, stream); });
    return outputs;
#else
    fail_without_cuda();
#endif
  }

 private:
  [[noreturn]] void fail_without_cuda() const;
  [[noreturn]] void fail_on_cuda() const;

  const char* op_;
  Framework& framework_;
  Device device_;
};

}  // namespace boxops
