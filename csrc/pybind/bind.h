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

#include <boxops/memory.h>
#include <boxops/ops.h>

namespace boxops::numpy {

namespace py = pybind11;

// Frameworks known by DLPack alone. Results are DLPackArrays, which a framework's from_dlpack takes over.
class DLPack : public Framework {
 public:
  DLPack() = default;  // for the legacy default stream
  // For a stream of the caller's framework, an object with `ptr`, which is kept as long as results are.
  explicit DLPack(const py::object& stream);
  Array empty(const Dims& sizes, DType dtype, Device device) override;
  const Parallel& parallel() override;
  void* stream(Device) override { return stream_; }
  virtual py::object to_object(const Array& array);

  // A view of a NumPy array, or of what an object's __dlpack__ gives; TypeError for anything else.
  Array to_array(const char* op, const py::object& object) const;

 private:
  Array from_dlpack(const char* op, const py::object& object) const;

  void* stream_ = nullptr;
  std::shared_ptr<void> keeps_stream_;
};

// Results on the CPU are NumPy arrays.
class Numpy final : public DLPack {
 public:
  Array empty(const Dims& sizes, DType dtype, Device device) override;
  py::object to_object(const Array& array) override;
};

// What Python passes for a parameter of an op: arrays come as objects.
template <class T>
struct Param {
  using type = T;
  static T take(const DLPack&, const char*, T value) { return value; }
};
template <>
struct Param<Array> {
  using type = py::object;
  static Array take(const DLPack& framework, const char* op, const py::object& object) {
    return framework.to_array(op, object);
  }
};
template <>
struct Param<std::optional<Array>> {
  using type = py::object;
  static std::optional<Array> take(const DLPack& framework, const char* op, const py::object& object) {
    return object.is_none() ? std::nullopt : std::optional<Array>(framework.to_array(op, object));
  }
};

template <>
struct Param<std::vector<Array>> {
  using type = std::vector<py::object>;
  static std::vector<Array> take(const DLPack& framework, const char* op, const std::vector<py::object>& objects) {
    std::vector<Array> arrays;
    for (const py::object& object : objects) arrays.push_back(framework.to_array(op, object));
    return arrays;
  }
};

inline py::object to_python(DLPack& framework, const Array& a) { return framework.to_object(a); }
template <class... A>
py::object to_python(DLPack& framework, const std::tuple<A...>& all) {
  return std::apply([&](const auto&... a) { return py::make_tuple(framework.to_object(a)...); }, all);
}

// One call of an op. The GIL is free while it runs.
template <class R, class... Args>
py::object call(DLPack& framework, const char* name, R (*op)(Framework&, Args...),
                const typename Param<Args>::type&... args) {
  std::tuple<Args...> values{Param<Args>::take(framework, name, args)...};
  const R result = std::apply(
      [&](auto&... v) {
        const py::gil_scoped_release release;
        try {
          return op(framework, v...);
        } catch (...) {
          rethrow_named([name] { return name; });
        }
      },
      values);
  return to_python(framework, result);
}

// Defines name(arrays..., numbers...) in the module, for NumPy, and as a method of its class DLPack.
template <class R, class... Args>
void def(py::module_& module, const char* name, R (*op)(Framework&, Args...)) {
  module.def(name, [name, op](const typename Param<Args>::type&... args) {
    Numpy framework;
    return call(framework, name, op, args...);
  });
  py::reinterpret_borrow<py::class_<DLPack>>(module.attr("DLPack"))
      .def(name, [name, op](DLPack& framework, const typename Param<Args>::type&... args) {
        return call(framework, name, op, args...);
      });
}

}  // namespace boxops::numpy
