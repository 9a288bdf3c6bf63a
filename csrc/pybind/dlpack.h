// The DLPack structures (dmlc/dlpack), of version 1.0 and from before it.
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

struct DLManagedTensor {  // in a capsule named "dltensor"
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};

struct DLManagedTensorVersioned {  // in a capsule named "dltensor_versioned"
  uint32_t major, minor;           // of another major version only the fields up to the deleter can be read
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  uint64_t flags;  // bit 0: read-only, bit 1: a copy
  DLTensor dl_tensor;
};

}  // namespace boxops::numpy
