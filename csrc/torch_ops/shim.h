// What is used of torch's stable C ABI (its "C shim", the functions of torch/csrc/stable/c/shim.h and
// torch/csrc/inductor/aoti_torch/c/shim.h), declared here so that building needs no torch. All of it is in torch 2.10
// and stays in later ones. Functions return 0, or else an error. A test compares each line with the headers of the
// torch that is installed.
#pragma once

#include <cstddef>
#include <cstdint>

// 2.10.0 as torch writes it: the version whose conventions are followed.
constexpr uint64_t kTorchVersion = uint64_t(2) << 56 | uint64_t(10) << 48;

using AOTITorchError = int32_t;
using AtenTensorHandle = struct AtenTensorOpaque*;
using TorchLibraryHandle = class TorchLibraryOpaque*;
using StableListHandle = struct StableListOpaque*;
using StringHandle = struct StringOpaque*;
// An argument or result of an operator: integers, bools and doubles by their bits; an owned AtenTensorHandle,
// StableListHandle or StringHandle; for an optional, null or a pointer, owned and from new, to the StableIValue of what
// it holds.
using StableIValue = uint64_t;

extern "C" {

int32_t aoti_torch_device_type_cpu();
int32_t aoti_torch_device_type_cuda();
int32_t aoti_torch_dtype_uint8();
int32_t aoti_torch_dtype_int8();
int32_t aoti_torch_dtype_uint16();
int32_t aoti_torch_dtype_int16();
int32_t aoti_torch_dtype_uint32();
int32_t aoti_torch_dtype_int32();
int32_t aoti_torch_dtype_uint64();
int32_t aoti_torch_dtype_int64();
int32_t aoti_torch_dtype_float16();
int32_t aoti_torch_dtype_bfloat16();
int32_t aoti_torch_dtype_float32();
int32_t aoti_torch_dtype_float64();
int32_t aoti_torch_dtype_bool();
int32_t aoti_torch_dtype_complex64();
int32_t aoti_torch_dtype_complex128();

// Tensors. New handles are the caller's; sizes and strides are the tensor's.
AOTITorchError aoti_torch_empty_strided(int64_t rank, const int64_t* sizes, const int64_t* strides, int32_t dtype,
                                        int32_t device_type, int32_t device_index, AtenTensorHandle* tensor);
AOTITorchError aoti_torch_new_tensor_handle(AtenTensorHandle tensor, AtenTensorHandle* another);
AOTITorchError aoti_torch_delete_tensor_object(AtenTensorHandle tensor);
AOTITorchError aoti_torch_get_dtype(AtenTensorHandle tensor, int32_t* dtype);
AOTITorchError aoti_torch_get_device_type(AtenTensorHandle tensor, int32_t* type);
AOTITorchError aoti_torch_get_device_index(AtenTensorHandle tensor, int32_t* index);
AOTITorchError aoti_torch_get_dim(AtenTensorHandle tensor, int64_t* rank);
AOTITorchError aoti_torch_get_sizes(AtenTensorHandle tensor, int64_t** sizes);
AOTITorchError aoti_torch_get_strides(AtenTensorHandle tensor, int64_t** strides);
AOTITorchError aoti_torch_get_data_ptr(AtenTensorHandle tensor, void** data);
AOTITorchError aoti_torch_aten_fill__Scalar(AtenTensorHandle tensor, double value);
AOTITorchError aoti_torch__reinterpret_tensor(AtenTensorHandle tensor, int64_t rank, const int64_t* sizes,
                                              const int64_t* strides, int64_t offset, AtenTensorHandle* view);

AOTITorchError torch_list_size(StableListHandle list, size_t* size);
AOTITorchError torch_list_get_item(StableListHandle list, size_t index, StableIValue* item);
AOTITorchError torch_delete_list(StableListHandle list);

AOTITorchError torch_string_length(StringHandle string, size_t* length);
AOTITorchError torch_string_c_str(StringHandle string, const char** text);
AOTITorchError torch_delete_string(StringHandle string);

// Operators: schemas in a fragment of a namespace, kernels in an impl for a dispatch key, both undone by the deletion.
// A kernel, or whoever calls the dispatcher, finds arguments on the stack and leaves results in their place.
AOTITorchError aoti_torch_library_init_fragment(const char* ns, const char* file, uint32_t line,
                                                TorchLibraryHandle* library);
AOTITorchError aoti_torch_library_init_impl(const char* ns, const char* key, const char* file, uint32_t line,
                                            TorchLibraryHandle* library);
AOTITorchError aoti_torch_library_def(TorchLibraryHandle library, const char* schema);
AOTITorchError torch_library_impl(TorchLibraryHandle library, const char* name,
                                  void (*kernel)(StableIValue* stack, uint64_t inputs, uint64_t outputs),
                                  uint64_t version);
AOTITorchError aoti_torch_delete_library_object(TorchLibraryHandle library);
AOTITorchError torch_call_dispatcher(const char* name, const char* overload, StableIValue* stack, uint64_t version);

// Threads.
AOTITorchError torch_get_num_threads(uint32_t* count);
AOTITorchError torch_parallel_for(int64_t begin, int64_t end, int64_t grain,
                                  void (*body)(int64_t begin, int64_t end, void* context), void* context);

// Weak: a CPU-only torch does not have it, and then no CUDA tensor exists to need it.
__attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);
}
