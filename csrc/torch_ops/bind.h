// Translates between torch's stable ABI and the ops of boxops/registry.h.
#pragma once

#include <stdexcept>
#include <string>

#include <boxops/ops.h>
#include <boxops/registry.h>

#include "torch_ops/shim.h"

namespace boxops::torch_ops {

inline void check(AOTITorchError error, const char* call) {
  if (error != 0) throw std::runtime_error(std::string("boxops: torch failed in ") + call);
}
#define CHECK(function, ...) check(function(__VA_ARGS__), #function)

Array to_array(AtenTensorHandle owned);          // takes over the handle
AtenTensorHandle to_handle(const Array& array);  // a new handle
inline AtenTensorHandle handle_of(const Array& array) { return static_cast<AtenTensorHandle>(array.owner.get()); }
inline StableIValue pass(const Array& a) { return reinterpret_cast<StableIValue>(to_handle(a)); }

class Torch final : public Framework {
 public:
  Array empty(const Dims& sizes, DType dtype, Device device) override;
  const Parallel& parallel() override;
  void* stream(Device device) override;
};

// Runs an op: takes its arguments from torch's stack of 64-bit values, and leaves its results there.
void call(const Op& op, StableIValue* stack);

// What torch calls for an operator and a device: the stack, and the numbers of arguments and of results.
using Kernel = void(StableIValue*, uint64_t, uint64_t);

// Schemas of a namespace or, with a dispatch key, kernels, registered while this lives.
class Library {
 public:
  Library(const char* ns, const char* key, const char* file) {
    if (key == nullptr) CHECK(aoti_torch_library_init_fragment, ns, file, 0, &handle_);
    else CHECK(aoti_torch_library_init_impl, ns, key, file, 0, &handle_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library() { aoti_torch_delete_library_object(handle_); }

  void def(const char* schema) { CHECK(aoti_torch_library_def, handle_, schema); }
  void impl(const char* name, Kernel* kernel) { CHECK(torch_library_impl, handle_, name, kernel, kTorchVersion); }

 private:
  TorchLibraryHandle handle_;
};

// One kernel of each operator, for CPU and CUDA.
class Kernels {
 public:
  Kernels(const char* ns, const char* file) : cpu_(ns, "CPU", file), cuda_(ns, "CUDA", file) {}
  void impl(const char* name, Kernel* kernel) { cpu_.impl(name, kernel), cuda_.impl(name, kernel); }

 private:
  Library cpu_, cuda_;
};

}  // namespace boxops::torch_ops
