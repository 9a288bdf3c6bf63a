// Translates between Python arrays (NumPy, or anything with __dlpack__) and the ops of boxops/registry.h.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <boxops/registry.h>

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
  virtual bool is_numpy() const { return false; }

  bool gil_is_free = false;  // while an op runs

  // A view of a NumPy array, or of what an object's __dlpack__ gives; TypeError for anything else.
  // What it shows lives as long as the object; with `keep`, as long as the Array.
  Array to_array(const char* op, py::handle object, bool keep = false) const;

 private:
  Array from_dlpack(const char* op, py::handle object) const;

  void* stream_ = nullptr;
  std::shared_ptr<void> keeps_stream_;
};

// Results on the CPU are NumPy arrays. It holds what it has made itself, so it outlives the Arrays.
class Numpy final : public DLPack {
 public:
  ~Numpy() override;
  Array empty(const Dims& sizes, DType dtype, Device device) override;
  py::object to_object(const Array& array) override;
  bool is_numpy() const override { return true; }

 private:
  // Without an owner for each, which takes longer than a small op: letting it go asks for the GIL.
  static constexpr int kHeld = 8;
  PyObject* held_[kHeld];
  int count_ = 0;
};

// The classes DLPack and DLPackArray.
void define_dlpack(py::module_& module);

// Every op: as a function of the module, for NumPy, and of its class DLPack, whose first argument is one.
void define_ops(py::module_& module);

}  // namespace boxops::numpy
