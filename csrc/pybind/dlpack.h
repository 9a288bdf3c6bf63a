// The DLPack structures (dmlc/dlpack, ABI before 1.0, which every exporter still offers).
#pragma once

#include <cstdint>

namespace boxops::numpy {

struct DLDevice {
  int32_t device_type;  // 1 CPU, 2 CUDA, 3 pinned host, 13 managed
  int32_t device_id;
};

struct DLDataType {
  uint8_t code;  // 0 int, 1 uint, 2 float, 3 opaque, 4 bfloat, 5 complex, 6 bool
  uint8_t bits;
  uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null for a compact row-major array
  uint64_t byte_offset;
};

struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};

}  // namespace boxops::numpy
