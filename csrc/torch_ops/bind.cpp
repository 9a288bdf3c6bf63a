#include "torch_ops/bind.h"

#ifndef _WIN32
#include <pthread.h>
#endif

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include <boxops/memory.h>
#include <boxops/threads.h>

namespace boxops::torch_ops {
namespace {

// torch's number of each DType, in the order of DType.
const std::array<int32_t, 15>& torch_dtypes() {
  static const std::array<int32_t, 15> numbers = {
      aoti_torch_dtype_uint8(),    aoti_torch_dtype_int8(),      aoti_torch_dtype_uint16(),
      aoti_torch_dtype_int16(),    aoti_torch_dtype_uint32(),    aoti_torch_dtype_int32(),
      aoti_torch_dtype_uint64(),   aoti_torch_dtype_int64(),     aoti_torch_dtype_float16(),
      aoti_torch_dtype_bfloat16(), aoti_torch_dtype_float32(),   aoti_torch_dtype_float64(),
      aoti_torch_dtype_bool(),     aoti_torch_dtype_complex64(), aoti_torch_dtype_complex128()};
  return numbers;
}

DType dtype_of(int32_t number) {
  const auto& numbers = torch_dtypes();
  for (size_t i = 0; i < numbers.size(); ++i)
    if (numbers[i] == number) return static_cast<DType>(i);
  return DType::kOther;
}

// Whether this process was forked and runs the program of its parent. Such a child has a copy of torch's (OpenMP's)
// pool but none of its threads, and would wait for them for ever.
bool forked_before() {
#ifdef __linux__
  constexpr unsigned kForkNoExec = 0x40;  // PF_FORKNOEXEC; flags are the seventh field after the program's name
  std::ifstream file("/proc/self/stat");
  std::string line, field;
  std::getline(file, line);
  std::istringstream fields(line.substr(std::min(line.size(), line.rfind(')') + 1)));
  unsigned flags = 0;
  for (int i = 1; i < 7; ++i) fields >> field;
  return fields >> flags && (flags & kForkNoExec);
#else
  return false;
#endif
}

std::atomic<bool> is_forked = [] {
#ifndef _WIN32
  pthread_atfork(nullptr, nullptr, [] { is_forked = true; });  // this library may be loaded before or after the fork
#endif
  return forked_before();
}();

int64_t num_threads() {
  uint32_t n = 1;
  CHECK(torch_get_num_threads, &n);
  return n;
}

// torch's own threads, so that torch.set_num_threads holds; in a forked child as many that live for one call.
class TorchThreads final : public Parallel {
 public:
  TorchThreads() : Parallel(wake_ns()) {}
  void run(int64_t n, int64_t grain, Range body) const override {
    if (is_forked) return own_.run(n, grain, body);
    struct Work {
      Range body;
      OneException exception;
    } work{body, {}};
    const auto call = [](int64_t begin, int64_t end, void* context) {
      auto* w = static_cast<Work*>(context);
      w->exception.run([&] { w->body(begin, end); });
    };
    CHECK(torch_parallel_for, 0, n, grain, call, &work);
    work.exception.rethrow();
  }

 private:
  OwnThreads own_{num_threads};
};

}  // namespace

Array to_array(AtenTensorHandle owned) {
  Array a;
  a.owner =
      std::shared_ptr<void>(owned, [](void* h) { aoti_torch_delete_tensor_object(static_cast<AtenTensorHandle>(h)); });
  int32_t number, device_type, device_index;
  int64_t rank, *sizes, *strides;
  CHECK(aoti_torch_get_dtype, owned, &number);
  CHECK(aoti_torch_get_device_type, owned, &device_type);
  CHECK(aoti_torch_get_device_index, owned, &device_index);
  CHECK(aoti_torch_get_dim, owned, &rank);
  CHECK(aoti_torch_get_sizes, owned, &sizes);
  CHECK(aoti_torch_get_strides, owned, &strides);
  CHECK(aoti_torch_get_data_ptr, owned, &a.data);
  a.sizes.assign(sizes, static_cast<int>(rank)), a.strides.assign(strides, static_cast<int>(rank));
  a.dtype = dtype_of(number);
  if (device_type == aoti_torch_device_type_cuda()) a.device = {DeviceType::kCUDA, device_index};
  return a;
}

AtenTensorHandle to_handle(const Array& array) {
  AtenTensorHandle handle;
  CHECK(aoti_torch_new_tensor_handle, handle_of(array), &handle);
  return handle;
}

Array Torch::empty(const Dims& sizes, DType dtype, Device device) {
  AtenTensorHandle handle;
  const bool on_cpu = device.type == DeviceType::kCPU;
  const int64_t bytes = bytes_of(sizes, dtype, device);
  if (aoti_torch_empty_strided(sizes.count, sizes.values, compact_strides(sizes).values,
                               torch_dtypes()[static_cast<size_t>(dtype)],
                               on_cpu ? aoti_torch_device_type_cpu() : aoti_torch_device_type_cuda(),
                               on_cpu ? 0 : device.index, &handle) != 0)
    throw NoMemory(sizes, dtype, device);
  Array array = to_array(handle);
  if (on_cpu) use_large_pages(array.data, bytes);
  return array;
}

const Parallel& Torch::parallel() {
  static const TorchThreads threads;
  return threads;
}

void* Torch::stream([[maybe_unused]] Device device) {
  void* stream = nullptr;
#ifdef __linux__
  CHECK(aoti_torch_get_current_cuda_stream, device.index, &stream);
#endif
  return stream;
}

namespace {

std::string take_string(StableIValue v) {
  const std::unique_ptr<StringOpaque, decltype(&torch_delete_string)> owned(reinterpret_cast<StringHandle>(v),
                                                                            torch_delete_string);
  size_t length = 0;
  const char* text = nullptr;
  CHECK(torch_string_length, owned.get(), &length);
  CHECK(torch_string_c_str, owned.get(), &text);
  return std::string(text, length);
}

double take_double(StableIValue v) {
  double value;
  static_assert(sizeof(value) == sizeof(v));
  std::memcpy(&value, &v, sizeof(v));
  return value;
}

template <class F>
auto take_list(StableIValue v, F take_item) {
  const std::shared_ptr<StableListOpaque> list(reinterpret_cast<StableListHandle>(v), torch_delete_list);
  size_t size = 0;
  CHECK(torch_list_size, list.get(), &size);
  std::vector<decltype(take_item(v))> items;
  for (size_t i = 0; i < size; ++i) {
    StableIValue item;
    CHECK(torch_list_get_item, list.get(), i, &item);
    items.push_back(take_item(item));
  }
  return items;
}

// Takes over what the value holds.
Value take(StableIValue v, Kind kind) {
  const auto to_tensor = [](StableIValue t) { return to_array(reinterpret_cast<AtenTensorHandle>(t)); };
  const auto to_integer = [](StableIValue i) { return static_cast<int64_t>(i); };
  switch (kind) {
    case Kind::kNone: break;
    case Kind::kArray: return to_tensor(v);
    case Kind::kArrays: return take_list(v, to_tensor);
    case Kind::kBool: return static_cast<bool>(v);
    case Kind::kInt: return to_integer(v);
    case Kind::kFloat: return take_double(v);
    case Kind::kName: return take_string(v);
    case Kind::kInts: return take_list(v, to_integer);
    case Kind::kFloats: return take_list(v, take_double);
  }
  return {};
}

Value take(StableIValue v, const Argument& argument) {
  if (!argument.optional) return take(v, argument.kind);
  const std::unique_ptr<StableIValue> held(reinterpret_cast<StableIValue*>(v));
  return held == nullptr ? Value() : take(*held, argument.kind);
}

}  // namespace

void call(const Op& op, StableIValue* stack) {
  Torch framework;
  Arguments arguments;
  Results results;
  for (size_t i = 0; i < op.arguments.size(); ++i) arguments.add([&] { return take(stack[i], op.arguments[i]); });
  try {
    op.call(op, framework, arguments, results);
  } catch (...) {
    rethrow_named([&] { return op.name; });
  }
  for (int i = 0; i < op.results; ++i) stack[i] = pass(results[i]);
}

// boxops' operators with their kernels, registered when this library is loaded. Fake kernels, autograd and autocast
// come from Python.

namespace {

std::string schema_of(const Op& op) {
  constexpr const char* types[] = {"", "Tensor", "Tensor[]", "bool", "SymInt", "float", "str", "SymInt[]", "float[]"};
  std::string schema = op.name;
  for (const Argument& a : op.arguments)
    schema += (&a == op.arguments.data() ? "(" : ", ") + std::string(types[static_cast<int>(a.kind)]) +
              (a.optional ? "? " : " ") + a.name;
  schema += ") -> ";
  for (int i = 0; i < op.results; ++i) schema += i > 0 ? ", Tensor" : op.results > 1 ? "(Tensor" : "Tensor";
  return schema + (op.results > 1 ? ")" : "");
}

// torch hands its kernels no word of which operator they are called for: each has a function of its own.
constexpr size_t kMaxOps = 96;
template <size_t i>
void kernel(StableIValue* stack, uint64_t, uint64_t) {
  call(*all_ops()[i], stack);
}
template <size_t... i>
constexpr std::array<Kernel*, kMaxOps> kernels(std::index_sequence<i...>) {
  return {kernel<i>...};
}

class Operators {
 public:
  Operators() : schemas_("boxops", nullptr, __FILE__), kernels_("boxops", __FILE__) {
    constexpr auto functions = kernels(std::make_index_sequence<kMaxOps>());
    const auto& ops = all_ops();
    if (ops.size() > kMaxOps) throw std::logic_error("boxops: expected fewer ops than kMaxOps");
    for (size_t i = 0; i < ops.size(); ++i)
      schemas_.def(schema_of(*ops[i]).c_str()), kernels_.impl(ops[i]->name, functions[i]);
  }

 private:
  Library schemas_;
  Kernels kernels_;
};

const Operators operators;

}  // namespace

}  // namespace boxops::torch_ops
