// Translates between Python arrays (NumPy, or anything with __dlpack__) and the ops of csrc/ops, so
// that binding an op is one line.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
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
  // What it shows lives as long as the object; with `keep`, as long as the Array.
  Array to_array(const char* op, py::handle object, bool keep = false) const;

 private:
  Array from_dlpack(const char* op, py::handle object) const;

  void* stream_ = nullptr;
  std::shared_ptr<void> keeps_stream_;
};

// Results on the CPU are NumPy arrays.
class Numpy final : public DLPack {
 public:
  Array empty(const Dims& sizes, DType dtype, Device device) override;
  py::object to_object(const Array& array) override;
};

// A parameter of an op out of what Python passes for it. Arrays are views: the caller of the op holds the objects.
template <class T>
struct Param {
  static T take(const DLPack&, const char*, py::handle value) { return value.cast<T>(); }
};
template <>
struct Param<Array> {
  static Array take(const DLPack& framework, const char* op, py::handle object) {
    return framework.to_array(op, object);
  }
};
template <>
struct Param<std::optional<Array>> {
  static std::optional<Array> take(const DLPack& framework, const char* op, py::handle object) {
    return object.is_none() ? std::nullopt : std::optional<Array>(framework.to_array(op, object));
  }
};
template <>
struct Param<std::vector<Array>> {
  static std::vector<Array> take(const DLPack& framework, const char* op, py::handle objects) {
    std::vector<Array> arrays;
    // Kept, since nobody else may hold an item while the op runs: another thread can change the list.
    for (const py::object object : objects.cast<py::sequence>()) arrays.push_back(framework.to_array(op, object, true));
    return arrays;
  }
};

// How long a call may take, by its parameters: the elements of arrays, and sizes that are numbers.
inline double work(double) { return 0; }
inline double work(bool) { return 0; }
inline double work(int64_t size) { return static_cast<double>(size); }
inline double work(const Array& array) {
  double elements = 1;
  for (int i = 0; i < std::min(array.rank(), kMaxRank); ++i) elements *= static_cast<double>(array.sizes[i]);
  return elements;
}
template <class T>
double work(const std::optional<T>& value) {
  return value ? work(*value) : 0;
}
template <class T>
double work(const std::vector<T>& values) {
  double sum = 0;
  for (const T& value : values) sum += work(value);
  return sum;
}

inline py::object to_python(DLPack& framework, const Array& a) { return framework.to_object(a); }
template <class... A>
py::object to_python(DLPack& framework, const std::tuple<A...>& all) {
  return std::apply([&](const auto&... a) { return py::make_tuple(framework.to_object(a)...); }, all);
}

// For a catch block: what was thrown becomes Python's error.
void set_python_error();

// An op as a function of Python, by the vectorcall protocol: pybind11's own dispatch takes longer than a small op.
template <auto op>
struct Function;
template <class R, class... Args, R (*op)(Framework&, Args...)>
struct Function<op> {
  static inline PyMethodDef of_module, of_class;

  static void define(py::module_& module, const char* name) {
    of_module = {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&on_numpy)), METH_FASTCALL, nullptr};
    of_class = {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&on_dlpack)), METH_FASTCALL, nullptr};
    module.add_object(name, py::reinterpret_steal<py::object>(PyCFunction_New(&of_module, nullptr)));
    const py::object type = module.attr("DLPack");
    type.attr(name) =
        py::reinterpret_steal<py::object>(PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type.ptr()), &of_class));
  }

 private:
  static PyObject* on_numpy(PyObject*, PyObject* const* args, Py_ssize_t count) {
    Numpy framework;
    return guarded(framework, args, count);
  }
  static PyObject* on_dlpack(PyObject* self, PyObject* const* args, Py_ssize_t count) {
    return guarded(py::handle(self).cast<DLPack&>(), args, count);
  }
  static PyObject* guarded(DLPack& framework, PyObject* const* args, Py_ssize_t count) {
    try {
      if (count != sizeof...(Args))
        throw py::type_error(std::string(of_module.ml_name) + ": expected " + std::to_string(sizeof...(Args)) +
                             " arguments, got " + std::to_string(count));
      return call(framework, args, std::index_sequence_for<Args...>{}).release().ptr();
    } catch (...) {
      set_python_error();
      return nullptr;
    }
  }
  // The GIL is free while the op runs, unless that is done sooner than letting go of it.
  template <size_t... i>
  static py::object call(DLPack& framework, PyObject* const* args, std::index_sequence<i...>) {
    const char* name = of_module.ml_name;
    std::tuple<Args...> values{Param<Args>::take(framework, name, args[i])...};
    const R result = std::apply(
        [&](auto&... v) {
          std::optional<py::gil_scoped_release> release;
          if ((work(v) + ...) > 1000) release.emplace();
          try {
            return op(framework, std::move(v)...);
          } catch (...) {
            rethrow_named([name] { return name; });
          }
        },
        values);
    return to_python(framework, result);
  }
};

// Defines name(arrays..., numbers...) in the module, for NumPy, and as a method of its class DLPack.
template <auto op>
void def(py::module_& module, const char* name) {
  Function<op>::define(module, name);
}

}  // namespace boxops::numpy
