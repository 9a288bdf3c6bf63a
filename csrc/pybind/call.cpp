// The ops as functions of Python.
#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include <boxops/memory.h>
#include "pybind/bind.h"

namespace boxops::numpy {
namespace {

// Numbers that are none of Python's own (an array of one element, say) are read, or refused, by Python.
py::object checked(const char* check, const Op& op, const Argument& argument, py::handle value) {
  return py::module_::import("boxops.ops.backend").attr(check)(op.name, argument.name, value);
}

bool take_bool(const Op& op, const Argument& argument, py::handle value) {
  if (PyBool_Check(value.ptr())) return value.ptr() == Py_True;
  return checked("check_flag", op, argument, value).cast<bool>();
}

int64_t take_integer(const Op& op, const Argument& argument, py::handle value) {
  int overflow = 0;
  if (PyLong_Check(value.ptr())) {
    const long long integer = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
    if (overflow == 0) return integer;
  }
  return checked("check_integer", op, argument, value).cast<int64_t>();
}

double take_float(const Op& op, const Argument& argument, py::handle value) {
  if (PyFloat_Check(value.ptr())) return PyFloat_AS_DOUBLE(value.ptr());
  if (PyLong_Check(value.ptr())) {
    const double number = PyLong_AsDouble(value.ptr());
    if (number != -1 || !PyErr_Occurred()) return number;
    PyErr_Clear();
  }
  return checked("check_number", op, argument, value).cast<double>();
}

// Choices are looked at by the op itself.
std::string take_name(const Op& op, const Argument& argument, py::handle value) {
  Py_ssize_t length = 0;
  if (PyUnicode_Check(value.ptr()))
    if (const char* text = PyUnicode_AsUTF8AndSize(value.ptr(), &length))
      return std::string(text, static_cast<size_t>(length));
  PyErr_Clear();
  return py::module_::import("boxops.ops.backend")
      .attr("check_choice")(op.name, argument.name, value, py::cast(argument.choices))
      .cast<std::string>();
}

template <class T, class F>
std::vector<T> take_list(const char* check, const Op& op, const Argument& argument, py::handle values, F take) {
  std::vector<T> taken;
  const auto add = [&](py::handle list) {
    for (const py::handle value : list) taken.push_back(take(op, argument, value));
  };
  if (PyList_Check(values.ptr()) || PyTuple_Check(values.ptr())) add(values);
  else add(checked(check, op, argument, values));
  return taken;
}

// Arrays are views: the caller holds the objects.
Value take(const Op& op, const Argument& argument, const DLPack& framework, py::handle value) {
  if (argument.optional && value.is_none()) return std::monostate{};  // {} would clear all of it
  switch (argument.kind) {
    case Kind::kNone: break;
    case Kind::kArray:
      if (framework.is_numpy() && !py::isinstance<py::array>(value)) checked("check_kind", op, argument, value);
      return framework.to_array(op.name, value);
    case Kind::kArrays: {
      std::vector<Array> arrays;
      // Kept, since nobody else may hold an item while the op runs: another thread can change the list.
      for (const py::object item : value.cast<py::sequence>())
        arrays.push_back(framework.to_array(op.name, item, true));
      return arrays;
    }
    case Kind::kBool: return take_bool(op, argument, value);
    case Kind::kInt: return take_integer(op, argument, value);
    case Kind::kFloat: return take_float(op, argument, value);
    case Kind::kName: return take_name(op, argument, value);
    case Kind::kInts: return take_list<int64_t>("check_integers", op, argument, value, take_integer);
    case Kind::kFloats: return take_list<double>("check_numbers", op, argument, value, take_float);
  }
  return std::monostate{};
}

// How long a call may take, by its arguments: the elements of arrays, and sizes that are numbers.
double work(const Array& array) {
  double elements = 1;
  for (int i = 0; i < std::min(array.rank(), kMaxRank); ++i) elements *= static_cast<double>(array.sizes[i]);
  return elements;
}
double work(const Value& value) {
  double sum = 0;
  if (const auto* array = std::get_if<Array>(&value)) return work(*array);
  if (const auto* size = std::get_if<int64_t>(&value)) return static_cast<double>(*size);
  if (const auto* arrays = std::get_if<std::vector<Array>>(&value))
    for (const Array& array : *arrays) sum += work(array);
  if (const auto* sizes = std::get_if<std::vector<int64_t>>(&value))
    for (const int64_t size : *sizes) sum += static_cast<double>(size);
  return sum;
}

// For a catch block: what was thrown becomes Python's error.
void set_python_error() {
  try {
    throw;
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::cast_error& error) {
    PyErr_SetString(PyExc_TypeError, error.what());
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const OutOfMemory& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
  } catch (const Error& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}

py::object call(const Op& op, DLPack& framework, PyObject* const* args, Py_ssize_t count) {
  if (count != static_cast<Py_ssize_t>(op.arguments.size()))
    throw py::type_error(std::string(op.name) + ": expected " + std::to_string(op.arguments.size()) +
                         " arguments, got " + std::to_string(count));
  Arguments arguments;
  double size = 0;
  for (size_t i = 0; i < op.arguments.size(); ++i)
    size += work(arguments.add([&] { return take(op, op.arguments[i], framework, args[i]); }));
  Results results;
  {
    // The GIL is free while the op runs, unless that is done sooner than letting go of it.
    framework.gil_is_free = size > 1000;
    std::optional<py::gil_scoped_release> release;
    if (framework.gil_is_free) release.emplace();
    try {
      op.call(op, framework, arguments, results);
    } catch (...) {
      rethrow_named([&] { return op.name; });
    }
  }
  if (op.results == 1) return framework.to_object(results[0]);
  py::tuple all(op.results);
  for (int i = 0; i < op.results; ++i) all[i] = framework.to_object(results[i]);
  return std::move(all);
}

// By the vectorcall protocol: pybind11's own dispatch takes longer than a small op. `self` holds the op.
const Op& op_of(PyObject* self) { return *static_cast<const Op*>(PyCapsule_GetPointer(self, nullptr)); }

PyObject* on_numpy(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  try {
    Numpy framework;
    return call(op_of(self), framework, args, count).release().ptr();
  } catch (...) {
    set_python_error();
    return nullptr;
  }
}

PyObject* on_dlpack(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  try {
    if (count == 0 || !py::isinstance<DLPack>(args[0]))
      throw py::type_error(std::string(op_of(self).name) + ": expected a DLPack as first argument");
    return call(op_of(self), py::handle(args[0]).cast<DLPack&>(), args + 1, count - 1).release().ptr();
  } catch (...) {
    set_python_error();
    return nullptr;
  }
}

using Fast = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);

py::object function_of(const Op& op, Fast call) {
  static std::deque<PyMethodDef> methods;  // which Python does not copy
  methods.push_back(
      {op.name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call)), METH_FASTCALL, nullptr});
  const py::capsule self(static_cast<const void*>(&op));
  return py::reinterpret_steal<py::object>(PyCFunction_New(&methods.back(), self.ptr()));
}

}  // namespace

void define_ops(py::module_& module) {
  py::dict signatures;
  for (const Op* op : all_ops()) {
    module.attr(op->name) = function_of(*op, on_numpy);
    module.attr("DLPack").attr(op->name) = function_of(*op, on_dlpack);
    py::dict arguments;
    for (const Argument& a : op->arguments) {
      constexpr const char* kinds[] = {"", "array", "arrays", "bool", "int", "float", "name", "ints", "floats"};
      arguments[a.name] = py::make_tuple(kinds[static_cast<int>(a.kind)], a.optional, py::tuple(py::cast(a.choices)));
    }
    signatures[op->name] = arguments;
  }
  // {op: {argument: (kind, optional, choices)}}
  module.attr("SIGNATURES") = signatures;
}

}  // namespace boxops::numpy
