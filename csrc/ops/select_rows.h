// For ops with several outputs of a size known only afterwards.
#pragma once

#include <vector>

#include "ops/check.h"

namespace boxops {

// `outputs` have room for the most rows; all but the first rows are cut off. on_cpu() returns how many stay;
// on_cuda(count, stream) leaves that on the device, and the host waits for it.
template <class Cpu, class Cuda>
void select_rows(Framework& framework, const char* op, Device device, std::vector<Array*> outputs, Cpu on_cpu,
                 [[maybe_unused]] Cuda on_cuda) {
  int64_t count = 0;
  [[maybe_unused]] void* stream = nullptr;
  if (device.type == DeviceType::kCPU) {
    count = on_cpu();
  } else {
#if BOXOPS_WITH_CUDA
    const DeviceScope scope(device);
    stream = framework.stream(device);
    const Array counted = framework.empty({1}, DType::kInt64, device);
    check_cuda(op, on_cuda(counted.as<int64_t>(), stream));
    copy_to_host(op, &count, counted.data, sizeof(count), stream);
#else
    fail_without_cuda(op, device);
#endif
  }
  for (Array* output : outputs) {
    Dims sizes = output->sizes;
    if (sizes[0] == count) continue;
    sizes.values[0] = count;
    const Array cut = framework.empty(sizes, output->dtype, device);
    const size_t bytes = static_cast<size_t>(cut.numel() * size_of(cut.dtype));
    if (device.type == DeviceType::kCPU) {
      std::copy_n(output->as<char>(), bytes, cut.as<char>());
    } else {
#if BOXOPS_WITH_CUDA
      const DeviceScope scope(device);
      copy_on_device(op, cut.data, output->data, bytes, stream);
#endif
    }
    *output = cut;
  }
}

}  // namespace boxops
