// The checks of all ops, the words of their errors, and views of arrays for the kernels.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include <boxops/array.h>
#include <boxops/ragged.h>
#include <boxops/types.h>
#include "ops/cuda_runtime.h"

namespace boxops {

// Throws Error("<op>: expected <what>, got <what>").
[[noreturn]] void fail(const char* op, const std::string& expected, const std::string& got);

std::string to_string(const Dims& sizes);  // "[3, 4]"
std::string to_string(double value);       // "0.5"
std::string to_string(Device device);      // "cuda:0"

// Of bools, where they count as the numbers 0 and 1.
inline DType number_type(DType t) { return t == DType::kBool ? DType::kUInt8 : t; }

void check_numeric(const char* op, const char* name, const Array& a);
void check_number_or_bool(const char* op, const char* name, const Array& a);
void check_floating(const char* op, const char* name, const Array& a);
// The array's sizes are `shape`, with -1 for any.
void check_shape(const char* op, const char* name, const Array& a, const Dims& shape, const char* words);
void check_device(const char* op, const char* name, const Array& a, const char* of, const Array& other);
// boxes: numeric, with the last dim and, where `shape` starts without an ellipsis, the rank that it shows.
void check_boxes(const char* op, const char* name, const Array& boxes, const char* shape);
// One number per box, on the same device.
void check_per_box(const char* op, const char* name, const Array& a, const Array& boxes);
// The same for group ids and labels, which may be bools, and if floating must be whole.
void check_ids(const char* op, const char* name, const Array& a, const Array& boxes);
// No value of [N] or [B, N] is a fraction, NaN or infinite. Looked at on the CPU only: a device is not waited for.
void check_whole(const char* op, const char* name, const Array& a);
void check_one_device(const char* op, const Array& boxes1, const Array& boxes2);
// Integers [B + 1] on the device of `rows`, rising from 0 to its number of rows; the values are looked at on the CPU
// only. `offsets` becomes contiguous int64 and must outlive the result. Without offsets, one item has all rows.
Ragged check_offsets(Framework& framework, const char* op, const char* name, std::optional<Array>& offsets,
                     const char* rows_name, const Array& rows);
void check_number(const char* op, const char* name, double value);  // not NaN
void check_finite(const char* op, const char* name, double value);
void check_iou_threshold(const char* op, double iou_threshold);

// The leading dims of both arrays, all but the last `drop`, broadcast.
Dims broadcast(const char* op, const Array& boxes1, const Array& boxes2, int drop);

// `array` itself, or a contiguous copy with the same sizes.
Array contiguous(Framework& framework, const char* op, const Array& array);

// `array`, of an integer type, itself if it is int64, or a contiguous copy as int64: what kernels read indices from.
Array indices_of(Framework& framework, const char* op, const char* name, const Array& array);

// [lead..., N, 4] as [B, N, 4], or with `fold` [lead..., 4] as [1, N, 4], broadcast to `lead`. Where the
// strides allow no such view, `boxes` becomes a copy.
Boxes view_boxes(Framework& framework, const char* op, Array& boxes, const Dims& lead, bool fold, Format format);
Format check_format(const char* op, int64_t format);
Scalars view_scalars(const Array& scalars);  // [N] or [B, N]; bools as 0 and 1

// Runs the call for the device that the arrays are on.
#if BOXOPS_WITH_CUDA
#define BOXOPS_DISPATCH(op, on, cpu_call, cuda_call) \
  do {                                               \
    if ((on).type == DeviceType::kCPU) {             \
      cpu_call;                                      \
    } else {                                         \
      const DeviceScope scope(on);                   \
      check_cuda(op, cuda_call);                     \
    }                                                \
  } while (0)
#else
#define BOXOPS_DISPATCH(op, on, cpu_call, cuda_call)                 \
  do {                                                               \
    if ((on).type == DeviceType::kCUDA) fail_without_cuda(op, (on)); \
    cpu_call;                                                        \
  } while (0)
#endif
[[noreturn]] void fail_without_cuda(const char* op, Device device);

// For outputs whose size is known only afterwards, at most `most` indices. on_cpu(indices) returns
// their number; on_cuda(indices, count, stream) leaves it on the device, and the host waits for it.
template <class Cpu, class Cuda>
Array select(Framework& framework, const char* op, Device device, int64_t most, Cpu on_cpu,
             [[maybe_unused]] Cuda on_cuda) {
  if (device.type == DeviceType::kCPU) {
    const std::unique_ptr<int64_t[]> indices(new int64_t[most]);
    const int64_t count = on_cpu(indices.get());
    Array out = framework.empty({count}, DType::kInt64, device);
    std::copy_n(indices.get(), count, out.as<int64_t>());
    return out;
  }
#if BOXOPS_WITH_CUDA
  const DeviceScope scope(device);
  void* stream = framework.stream(device);
  const Array found = framework.empty({most + 1}, DType::kInt64, device);
  int64_t *indices = found.as<int64_t>(), count = 0;
  check_cuda(op, on_cuda(indices, indices + most, stream));
  copy_to_host(op, &count, indices + most, sizeof(count), stream);
  Array out = framework.empty({count}, DType::kInt64, device);
  copy_on_device(op, out.data, indices, count * sizeof(int64_t), stream);
  return out;
#else
  fail_without_cuda(op, device);
#endif
}

}  // namespace boxops
