// Translates between torch's stable ABI and the ops of csrc/ops, so that binding an op is one line.
#pragma once

#include <cstring>
#include <exception>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <boxops/memory.h>
#include <boxops/ops.h>

#include "torch_ops/shim.h"

namespace boxops::torch_ops {

inline void check(AOTITorchError error, const char* call) {
  if (error != 0) throw std::runtime_error(std::string("boxops: torch failed in ") + call);
}
#define CHECK(function, ...) check(function(__VA_ARGS__), #function)

Array to_array(AtenTensorHandle owned);          // takes over the handle
AtenTensorHandle to_handle(const Array& array);  // a new handle
inline AtenTensorHandle handle_of(const Array& array) { return static_cast<AtenTensorHandle>(array.owner.get()); }

class Torch final : public Framework {
 public:
  Array empty(const Dims& sizes, DType dtype, Device device) override;
  const Parallel& parallel() override;
  void* stream(Device device) override;
};

// One argument out of, or one result into, torch's stack of 64-bit values.
template <class T>
struct Stack {
  static T take(StableIValue v) {
    if constexpr (std::is_floating_point_v<T>) {
      static_assert(sizeof(T) == sizeof(v));
      T value;
      std::memcpy(&value, &v, sizeof(v));
      return value;
    } else {
      return static_cast<T>(v);
    }
  }
};
template <>
struct Stack<Array> {
  static Array take(StableIValue v) { return to_array(reinterpret_cast<AtenTensorHandle>(v)); }
};
template <class T>
struct Stack<std::optional<T>> {
  static std::optional<T> take(StableIValue v) {
    const std::unique_ptr<StableIValue> inner(reinterpret_cast<StableIValue*>(v));
    if (inner == nullptr) return std::nullopt;
    return Stack<T>::take(*inner);
  }
};
template <class T>
struct Stack<std::vector<T>> {
  static std::vector<T> take(StableIValue v) {
    const std::shared_ptr<StableListOpaque> list(reinterpret_cast<StableListHandle>(v), torch_delete_list);
    size_t size = 0;
    CHECK(torch_list_size, list.get(), &size);
    std::vector<T> values;
    for (size_t i = 0; i < size; ++i) {
      StableIValue item;
      CHECK(torch_list_get_item, list.get(), i, &item);
      values.push_back(Stack<T>::take(item));
    }
    return values;
  }
};

inline StableIValue pass(const Array& a) { return reinterpret_cast<StableIValue>(to_handle(a)); }
inline void put(StableIValue* stack, const Array& a) { stack[0] = pass(a); }
template <class... A>
void put(StableIValue* stack, const std::tuple<A...>& results) {
  std::apply([&](const auto&... a) { (put(stack++, a), ...); }, results);
}

using Kernel = void(StableIValue*, uint64_t, uint64_t);

struct Op {
  const char* schema;
  Kernel* kernel;
  std::string name() const { return std::string(schema).substr(0, std::string(schema).find('(')); }
};

// For errors: the name under which a kernel was registered.
void remember(const Op& op);
std::string name_of(Kernel* kernel);

template <auto op>
struct Boxed;

template <class R, class... Args, R (*op)(Framework&, Args...)>
struct Boxed<op> {
  static void call(StableIValue* stack, uint64_t, uint64_t) { call(stack, std::index_sequence_for<Args...>()); }

 private:
  template <size_t... I>
  static void call(StableIValue* stack, std::index_sequence<I...>) {
    Torch framework;
    std::tuple<Args...> args{Stack<Args>::take(stack[I])...};
    try {
      put(stack, op(framework, std::move(std::get<I>(args))...));
    } catch (...) {
      rethrow_named([] { return name_of(&Boxed::call); });
    }
  }
};

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

// One kernel of each op, for CPU and CUDA.
class Kernels {
 public:
  Kernels(const char* ns, const char* file) : cpu_(ns, "CPU", file), cuda_(ns, "CUDA", file) {}
  void impl(const Op& op) {
    const std::string name = op.name();
    cpu_.impl(name.c_str(), op.kernel), cuda_.impl(name.c_str(), op.kernel);
  }

 private:
  Library cpu_, cuda_;
};

// boxops' operators with their kernels. Fake kernels, autograd and autocast come from Python.
class Operators {
 public:
  Operators(std::initializer_list<Op> ops, const char* file)
      : schemas_("boxops", nullptr, file), kernels_("boxops", file) {
    for (const Op& op : ops) schemas_.def(op.schema), remember(op), kernels_.impl(op);
  }

 private:
  Library schemas_;
  Kernels kernels_;
};

}  // namespace boxops::torch_ops

// Registers a braced list of Op{schema, Boxed<ops::f>::call} when the library is loaded.
#define BOXOPS_REGISTER(...) static const Operators kOperators(__VA_ARGS__, __FILE__);
