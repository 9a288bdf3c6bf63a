#include "ops/call.h"

#include <boxops/memory.h>
#include "ops/check.h"

namespace boxops {

void fail(const char* op, const std::string& expected, const std::string& got) {
  throw Error(std::string(op) + ": expected " + expected + ", got " + got);
}

Array Call::empty(const Dims& sizes, DType dtype) const {
  try {
    return framework_.empty(sizes, dtype, device_);
  } catch (const NoMemory&) {
    rethrow_named([this] { return op_; });
  }
}

void Call::fail_without_cuda() const {
  fail("arrays on the CPU (this boxops was built without CUDA)", to_string(device_));
}

void Call::fail_on_cuda() const {
  fail("arrays on the CPU (there is no CUDA kernel of this op yet)", to_string(device_));
}

}  // namespace boxops
