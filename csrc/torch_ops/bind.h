// Translates between torch's stable ABI and the ops of csrc/ops, so that binding an op is one line.
//
// Only the C shim is used, at the level of torch 2.10, so one binary serves every later torch, with
// and without CUDA: the one CUDA symbol is weak and only followed for CUDA tensors.
#pragma once

#include <torch/csrc/stable/library.h>

#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <boxops/memory.h>
#include <boxops/ops.h>

namespace boxops::torch_ops {

Array to_array(AtenTensorHandle owned);          // takes over the handle
AtenTensorHandle to_handle(const Array& array);  // a new handle

class Torch final : public Framework {
 public:
  Array empty(const Dims& sizes, DType dtype, Device device) override;
  const Parallel& parallel() override;
  void* stream(Device device) override;
};

// One argument out of, or one result into, torch's stack of 64-bit values.
template <class T>
struct Stack {
  static T take(StableIValue v) { return torch::stable::detail::to<T>(v); }
};
template <>
struct Stack<Array> {
  static Array take(StableIValue v) { return to_array(torch::stable::detail::to<AtenTensorHandle>(v)); }
};
template <class T>
struct Stack<std::optional<T>> {
  static std::optional<T> take(StableIValue v) {
    auto* inner = torch::stable::detail::to<StableIValue*>(v);
    if (inner == nullptr) return std::nullopt;
    const StableIValue value = *inner;
    delete inner;
    return Stack<T>::take(value);
  }
};

template <class T>
struct Stack<std::vector<T>> {
  static std::vector<T> take(StableIValue v) {
    const std::shared_ptr<StableListOpaque> list(torch::stable::detail::to<StableListHandle>(v), torch_delete_list);
    size_t size = 0;
    if (torch_list_size(list.get(), &size) != 0) throw std::runtime_error("boxops: torch failed in torch_list_size");
    std::vector<T> values;
    for (size_t i = 0; i < size; ++i) {
      StableIValue item;
      if (torch_list_get_item(list.get(), i, &item) != 0)
        throw std::runtime_error("boxops: torch failed in torch_list_get_item");
      values.push_back(Stack<T>::take(item));
    }
    return values;
  }
};

inline void put(StableIValue* stack, const Array& a) { stack[0] = torch::stable::detail::from(to_handle(a)); }
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

}  // namespace boxops::torch_ops

// Defines operators, given as a braced list of Op{schema, Boxed<ops::f>::call}, and their one kernel
// for CPU and CUDA when the library is loaded. Fake kernels, autograd and autocast come from Python.
#define BOXOPS_REGISTER(...)                                        \
  static const Op kOps[] = __VA_ARGS__;                             \
  STABLE_TORCH_LIBRARY_FRAGMENT(boxops, m) {                        \
    for (const Op& op : kOps) m.def(op.schema), remember(op);       \
  }                                                                 \
  STABLE_TORCH_LIBRARY_IMPL(boxops, CPU, m) {                       \
    for (const Op& op : kOps) m.impl(op.name().c_str(), op.kernel); \
  }                                                                 \
  STABLE_TORCH_LIBRARY_IMPL(boxops, CUDA, m) {                      \
    for (const Op& op : kOps) m.impl(op.name().c_str(), op.kernel); \
  }
