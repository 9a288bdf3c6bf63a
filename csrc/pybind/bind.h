// Translates between Python arrays (NumPy, or anything with __dlpack__) and the ops of csrc/ops, so
// that binding an op is one line.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "ops/ops.h"

namespace boxops::numpy {

namespace py = pybind11;

// A view of a NumPy array, or of what an object's __dlpack__ gives; TypeError for anything else.
Array to_array(const char* op, const py::object& object);

// A NumPy array on the CPU, a DLPackArray (an object with __dlpack__) on CUDA.
py::object to_object(const Array& array);

class Numpy final : public Framework {
 public:
  Array empty(const Dims& sizes, DType dtype, Device device) override;
  const Parallel& parallel() override;
  void* stream(Device) override { return nullptr; }  // the legacy default stream, stream 1 of DLPack
};

// What Python passes for a parameter of an op: arrays come as objects.
template <class T>
struct Param {
  using type = T;
  static T take(const char*, T value) { return value; }
};
template <>
struct Param<Array> {
  using type = py::object;
  static Array take(const char* op, const py::object& object) { return to_array(op, object); }
};
template <>
struct Param<std::optional<Array>> {
  using type = py::object;
  static std::optional<Array> take(const char* op, const py::object& object) {
    return object.is_none() ? std::nullopt : std::optional<Array>(to_array(op, object));
  }
};

template <>
struct Param<std::vector<Array>> {
  using type = std::vector<py::object>;
  static std::vector<Array> take(const char* op, const std::vector<py::object>& objects) {
    std::vector<Array> arrays;
    for (const py::object& object : objects) arrays.push_back(to_array(op, object));
    return arrays;
  }
};

inline py::object to_python(const Array& a) { return to_object(a); }
template <class... A>
py::object to_python(const std::tuple<A...>& all) {
  return std::apply([](const auto&... a) { return py::make_tuple(to_object(a)...); }, all);
}

// Defines name(arrays..., numbers...) in the module. The GIL is free while the op runs.
template <class R, class... Args>
void def(py::module_& module, const char* name, R (*op)(Framework&, Args...)) {
  module.def(name, [name, op](typename Param<Args>::type... args) {
    std::tuple<Args...> values{Param<Args>::take(name, args)...};
    R result = std::apply(
        [op](auto&... v) {
          const py::gil_scoped_release release;
          Numpy framework;
          return op(framework, v...);
        },
        values);
    return to_python(result);
  });
}

}  // namespace boxops::numpy
