#include "pybind/bind.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "ops/cuda_runtime.h"
#include "pybind/dlpack.h"
#include "pybind/threads.h"

namespace boxops::numpy {
namespace {

DType dtype_of(char kind, int64_t bytes) {
  if (kind == 'O') return DType::kObject;
  if (kind == 'c') return bytes == 8 ? DType::kComplex64 : bytes == 16 ? DType::kComplex128 : DType::kOther;
  const int log2 = bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : bytes == 8 ? 3 : -1;
  if (log2 < 0) return DType::kOther;
  switch (kind) {
    case 'u': return static_cast<DType>(static_cast<int>(DType::kUInt8) + 2 * log2);
    case 'i': return static_cast<DType>(static_cast<int>(DType::kInt8) + 2 * log2);
    case 'f':
      return log2 == 1 ? DType::kFloat16 : log2 == 2 ? DType::kFloat32 : log2 == 3 ? DType::kFloat64 : DType::kOther;
    case 'b': return log2 == 0 ? DType::kBool : DType::kOther;
    default: return DType::kOther;
  }
}

py::dtype numpy_dtype(DType dtype) {
  if (dtype == DType::kBFloat16) return py::dtype::from_args(py::module_::import("ml_dtypes").attr("bfloat16"));
  return py::dtype(name_of(dtype));
}

// Shares a Python object with code that may let it go without holding the GIL.
std::shared_ptr<void> share(const py::object& object) {
  return std::shared_ptr<void>(object.inc_ref().ptr(), [](void* p) {
    const py::gil_scoped_acquire gil;
    Py_DECREF(static_cast<PyObject*>(p));
  });
}

Array from_numpy(py::array array) {
  py::dtype dtype = array.dtype();
  bool regular = (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0 && dtype.byteorder() != '>';
  for (py::ssize_t i = 0; i < array.ndim(); ++i)
    regular &= dtype.itemsize() > 0 && array.strides(i) % dtype.itemsize() == 0;
  if (!regular && dtype.kind() != 'O') {  // odd strides, alignment or byte order: kernels get a copy
    array = py::module_::import("numpy").attr("array")(array, dtype.attr("newbyteorder")("="));
    dtype = array.dtype();
  }
  Array a;
  a.dtype = dtype_of(dtype.kind(), dtype.itemsize());
  if (dtype.kind() == 'V' && py::str(dtype.attr("name")).cast<std::string>() == "bfloat16") a.dtype = DType::kBFloat16;
  a.data = const_cast<void*>(array.data());
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    a.sizes.push_back(array.shape(i));
    a.strides.push_back(dtype.itemsize() > 0 ? array.strides(i) / dtype.itemsize() : 0);
  }
  a.owner = share(array);
  return a;
}

Array from_dlpack(const char* op, const py::object& object) {
  const auto [type, index] = object.attr("__dlpack_device__")().cast<std::pair<int, int>>();
  const bool on_cpu = type == 1 || type == 3;
  if (!on_cpu && type != 2 && type != 13)
    throw py::type_error(std::string(op) + ": expected arrays on the CPU or a CUDA device, got DLPack device type " +
                         std::to_string(type));
  const py::object capsule = on_cpu ? object.attr("__dlpack__")() : object.attr("__dlpack__")(py::arg("stream") = 1);
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  if (managed == nullptr) throw py::error_already_set();
  PyCapsule_SetName(capsule.ptr(), "used_dltensor");
  Array a;
  a.owner = std::shared_ptr<void>(managed, [](void* p) {
    const py::gil_scoped_acquire gil;
    auto* m = static_cast<DLManagedTensor*>(p);
    if (m->deleter) m->deleter(m);
  });
  const DLTensor& t = managed->dl_tensor;
  const auto refuse = [op](const std::string& expected, const std::string& got) {
    throw Error(std::string(op) + ": expected " + expected + ", got " + got);
  };
  if ((t.device.device_type == 1 || t.device.device_type == 3) != on_cpu || (!on_cpu && t.device.device_id != index))
    refuse("an array on the device that it names",
           "memory on DLPack device type " + std::to_string(t.device.device_type));
  if (t.ndim < 0) refuse("a rank >= 0", std::to_string(t.ndim));
  if (t.ndim > kMaxRank)  // before the sizes are read: whoever lies may not have that many
    refuse("arrays of at most " + std::to_string(kMaxRank) + " dims", std::to_string(t.ndim));
  if (t.ndim > 0 && t.shape == nullptr) refuse("a DLPack tensor with a shape", "none");
  constexpr char kinds[] = "iufoBcb";
  if (t.dtype.lanes == 1 && t.dtype.code < 7 && t.dtype.bits % 8 == 0)
    a.dtype = dtype_of(kinds[t.dtype.code], t.dtype.bits / 8);
  if (t.dtype.lanes == 1 && t.dtype.code == 4 && t.dtype.bits == 16) a.dtype = DType::kBFloat16;
  if (!on_cpu) a.device = {DeviceType::kCUDA, index};
  a.data = static_cast<char*>(t.data) + t.byte_offset;
  for (int i = 0; i < t.ndim; ++i) {
    if (t.shape[i] < 0) refuse("sizes >= 0", std::to_string(t.shape[i]));
    a.sizes.push_back(t.shape[i]);
  }
  a.strides = a.sizes;
  int64_t compact = 1;
  for (int i = t.ndim - 1; i >= 0; --i) {
    a.strides.values[i] = t.strides ? t.strides[i] : compact;
    if (__builtin_mul_overflow(compact, std::max<int64_t>(1, t.shape[i]), &compact))
      refuse("fewer than 2^63 elements", "more");
  }
  if (a.numel() > 0 && t.data == nullptr) refuse("a DLPack tensor with memory", "a null pointer");
  const auto address = reinterpret_cast<uintptr_t>(a.data);
  if (a.numel() > 0 && (is_integer(a.dtype) || is_floating(a.dtype)) && address % size_of(a.dtype) != 0)
    refuse("aligned memory", "an address that is no multiple of the element's size");
  return a;
}

// A result on a CUDA device, for the caller's from_dlpack.
struct DLPackArray {
  Array array;

  py::capsule capsule(const py::object& stream) const {
    if (!stream.is_none() && stream.cast<int64_t>() != -1) cuda_stream_waits(array.device, stream.cast<int64_t>());
    struct Export {
      Array array;
      DLManagedTensor managed;
    };
    auto* e = new Export{array, {}};
    const int bits = static_cast<int>(8 * size_of(array.dtype));
    const uint8_t code = array.dtype == DType::kBFloat16     ? 4
                         : array.dtype == DType::kBool       ? 6
                         : is_floating(array.dtype)          ? 2
                         : static_cast<int>(array.dtype) % 2 ? 0
                                                             : 1;
    e->managed.dl_tensor = {array.data,
                            {2, array.device.index},
                            array.rank(),
                            {code, static_cast<uint8_t>(bits), 1},
                            e->array.sizes.values,
                            e->array.strides.values,
                            0};
    e->managed.manager_ctx = e;
    e->managed.deleter = [](DLManagedTensor* m) { delete static_cast<Export*>(m->manager_ctx); };
    return py::capsule(&e->managed, "dltensor", [](PyObject* c) {
      if (!PyCapsule_IsValid(c, "dltensor")) return;  // taken by a consumer, who calls the deleter
      auto* m = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(c, "dltensor"));
      m->deleter(m);
    });
  }
};

}  // namespace

Array to_array(const char* op, const py::object& object) {
  if (py::isinstance<py::array>(object)) {
    const py::array array = py::reinterpret_borrow<py::array>(object);
    return from_numpy(array);
  }
  if (py::hasattr(object, "__dlpack__") && py::hasattr(object, "__dlpack_device__")) return from_dlpack(op, object);
  throw py::type_error(std::string(op) + ": expected arrays (NumPy, torch or DLPack), got " +
                       py::type::of(object).attr("__name__").cast<std::string>());
}

py::object to_object(const Array& array) {
  if (array.device.type == DeviceType::kCUDA) return py::cast(DLPackArray{array});
  return py::reinterpret_borrow<py::object>(static_cast<PyObject*>(array.owner.get()));
}

Array Numpy::empty(const Dims& sizes, DType dtype, Device device) {
  if (device.type == DeviceType::kCPU) {
    const py::gil_scoped_acquire gil;
    return from_numpy(
        py::array(numpy_dtype(dtype), std::vector<py::ssize_t>(sizes.values, sizes.values + sizes.count)));
  }
  Array a;
  a.dtype = dtype, a.device = device, a.sizes = a.strides = sizes;
  int64_t stride = 1;
  for (int i = sizes.count - 1; i >= 0; --i) a.strides.values[i] = stride, stride *= sizes[i];
  a.owner = cuda_allocate(device, stride * size_of(dtype));
  a.data = a.owner.get();
  return a;
}

const Parallel& Numpy::parallel() { return own_threads(); }

void define_dlpack_array(py::module_& module) {
  py::class_<DLPackArray>(module, "DLPackArray", "A result on a CUDA device; hand it to your framework's from_dlpack.")
      .def(
          "__dlpack__",
          [](const DLPackArray& a, const py::object& stream, const py::kwargs&) { return a.capsule(stream); },
          py::arg("stream") = py::none())
      .def("__dlpack_device__", [](const DLPackArray& a) { return py::make_tuple(2, a.array.device.index); });
}

}  // namespace boxops::numpy
