#include "pybind/bind.h"

#include <boxops/memory.h>
#include <boxops/threads.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "ops/cuda_runtime.h"
#include "pybind/dlpack.h"

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
  switch (dtype) {  // by number, where C++ has the type: a name takes NumPy longer than a small op
    case DType::kFloat32: return py::dtype::of<float>();
    case DType::kFloat64: return py::dtype::of<double>();
    case DType::kInt64: return py::dtype::of<int64_t>();
    case DType::kBool: return py::dtype::of<bool>();
    case DType::kBFloat16: return py::dtype::from_args(py::module_::import("ml_dtypes").attr("bfloat16"));
    default: return py::dtype(name_of(dtype));
  }
}

// Shares a Python object with code that may let it go without holding the GIL.
std::shared_ptr<void> share(const py::object& object) {
  return std::shared_ptr<void>(object.inc_ref().ptr(), [](void* p) {
    const py::gil_scoped_acquire gil;
    Py_DECREF(static_cast<PyObject*>(p));
  });
}

// Refers to an object that somebody else keeps alive.
std::shared_ptr<void> borrowed(PyObject* object) { return {std::shared_ptr<void>(), object}; }

// A view. The object is kept alive where that is asked for, or where it is a copy.
Array from_numpy(const py::array& array, bool keep) {
  const py::dtype dtype = array.dtype();
  const char kind = dtype.kind();
  const int64_t bytes = dtype.itemsize();
  const auto* numpy = py::detail::array_proxy(array.ptr());  // py::array's own functions take longer than a small op
  bool regular = (numpy->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0 && dtype.byteorder() != '>';
  Array a;
  a.sizes.assign(numpy->dimensions, numpy->nd);
  const bool is_compact = (numpy->flags & py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_) != 0;
  if (is_compact && numpy->nd <= kMaxRank) a.strides = compact_strides(a.sizes);  // a division takes longer
  else
    for (int i = 0; i < numpy->nd; ++i) {
      const int64_t stride = bytes > 0 ? numpy->strides[i] / bytes : 0;
      regular &= stride * bytes == numpy->strides[i] || bytes == 0;
      a.strides.push_back(stride);
    }
  if (!regular && kind != 'O')  // odd strides, alignment or byte order: kernels get a copy
    return from_numpy(py::module_::import("numpy").attr("array")(array, dtype.attr("newbyteorder")("=")), true);
  a.dtype = dtype_of(kind, bytes);
  if (kind == 'V' && py::str(dtype.attr("name")).cast<std::string>() == "bfloat16") a.dtype = DType::kBFloat16;
  a.data = numpy->data;
  a.owner = keep ? share(array) : borrowed(array.ptr());
  return a;
}

[[noreturn]] void fail(const char* op, const std::string& expected, const std::string& got) {
  throw Error(std::string(op) + ": expected " + expected + ", got " + got);
}

constexpr char kOld[] = "dltensor", kVersioned[] = "dltensor_versioned";

// Takes a capsule's tensor over; `owner` lets it go.
template <class Managed>
const DLTensor& take_over(const char* op, const py::object& capsule, const char* name, const char* used_name,
                          std::shared_ptr<void>& owner) {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), name));
  PyCapsule_SetName(capsule.ptr(), used_name);
  owner = std::shared_ptr<void>(managed, [](void* p) {
    const py::gil_scoped_acquire gil;
    auto* m = static_cast<Managed*>(p);
    if (m->deleter) m->deleter(m);
  });
  if constexpr (std::is_same_v<Managed, DLManagedTensorVersioned>)
    if (managed->major != 1) fail(op, "a DLPack tensor of version 1", "version " + std::to_string(managed->major));
  return managed->dl_tensor;
}

DType dtype_of(const DLDataType& t) {
  constexpr char kinds[] = "iufoBcb";
  if (t.lanes != 1 || t.code >= 7 || t.bits % 8 != 0) return DType::kOther;
  return t.code == 4 && t.bits == 16 ? DType::kBFloat16 : dtype_of(kinds[t.code], t.bits / 8);
}

DLDataType dlpack_dtype(DType dtype) {
  const uint8_t code = dtype == DType::kBool         ? 6
                       : dtype == DType::kBFloat16   ? 4
                       : is_floating(dtype)          ? 2
                       : static_cast<int>(dtype) % 2 ? 0
                                                     : 1;
  return {code, static_cast<uint8_t>(8 * size_of(dtype)), 1};
}

// A result, for the from_dlpack of the caller's framework.
struct DLPackArray {
  Array array;
  void* stream;  // that it is made on

  std::pair<int, int> device() const {
    return array.device.type == DeviceType::kCPU ? std::pair(1, 0) : std::pair(2, array.device.index);
  }

  template <class Managed>
  py::capsule named(const char* name) const {
    struct Export {
      Array array;
      Managed managed;
    };
    auto* e = new Export{array, {}};
    if constexpr (std::is_same_v<Managed, DLManagedTensorVersioned>) e->managed.major = 1;
    e->managed.dl_tensor = {array.data,
                            {device().first, device().second},
                            array.rank(),
                            dlpack_dtype(array.dtype),
                            e->array.sizes.values,
                            e->array.strides.values,
                            0};
    e->managed.manager_ctx = e;
    e->managed.deleter = [](Managed* m) { delete static_cast<Export*>(m->manager_ctx); };
    return py::capsule(&e->managed, name, [](PyObject* c) {
      const char* unused = PyCapsule_GetName(c);
      if (std::strncmp(unused, "used", 4) == 0) return;  // taken by a consumer, who calls the deleter
      auto* m = static_cast<Managed*>(PyCapsule_GetPointer(c, unused));
      m->deleter(m);
    });
  }

  py::capsule capsule(const py::object& waiting, const std::optional<std::pair<int64_t, int64_t>>& max_version,
                      const std::optional<std::pair<int, int>>& wanted, const std::optional<bool>& copy) const {
    if ((wanted && *wanted != device()) || copy.value_or(false)) {
      PyErr_SetString(PyExc_BufferError, "boxops: expected an export of a result as it is, got a request for a copy");
      throw py::error_already_set();
    }
    const int64_t number = waiting.is_none() ? 1 : waiting.cast<int64_t>();
    if (array.device.type == DeviceType::kCUDA && number != -1) cuda_stream_waits(array.device, number, stream);
    return max_version && max_version->first >= 1 ? named<DLManagedTensorVersioned>(kVersioned)
                                                  : named<DLManagedTensor>(kOld);
  }
};

}  // namespace

DLPack::DLPack(const py::object& stream) {
  const auto number = stream.attr("ptr").cast<uintptr_t>();
  if (number > 1) stream_ = reinterpret_cast<void*>(number);  // 1 is DLPack's number of the legacy default stream
  keeps_stream_ = share(stream);
}

Array DLPack::from_dlpack(const char* op, py::handle object) const {
  int type = 0, index = 0;
  const py::object answer = object.attr("__dlpack_device__")();
  try {
    std::tie(type, index) = answer.cast<std::pair<int, int>>();
  } catch (const py::cast_error&) {
    throw py::type_error(std::string(op) + ": expected __dlpack_device__ to give two integers, got " +
                         py::repr(answer).cast<std::string>());
  }
  const bool on_cpu = type == 1 || type == 3;
  if (!on_cpu && type != 2 && type != 13)
    throw py::type_error(std::string(op) + ": expected arrays on the CPU or a CUDA device, got DLPack device type " +
                         std::to_string(type));
  py::dict options;
  if (!on_cpu) options["stream"] = stream_ == nullptr ? 1 : reinterpret_cast<uintptr_t>(stream_);
  py::object capsule;
  try {
    capsule = object.attr("__dlpack__")(py::arg("max_version") = py::make_tuple(1, 0), **options);
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
    capsule = object.attr("__dlpack__")(**options);  // from before version 1.0, without the keyword
  }
  const bool versioned = PyCapsule_IsValid(capsule.ptr(), kVersioned);
  if (!versioned && !PyCapsule_IsValid(capsule.ptr(), kOld))
    throw py::type_error(std::string(op) + ": expected a fresh DLPack capsule from __dlpack__, got " +
                         py::repr(capsule).cast<std::string>());
  Array a;
  const DLTensor& t =
      versioned ? take_over<DLManagedTensorVersioned>(op, capsule, kVersioned, "used_dltensor_versioned", a.owner)
                : take_over<DLManagedTensor>(op, capsule, kOld, "used_dltensor", a.owner);
  if ((t.device.device_type == 1 || t.device.device_type == 3) != on_cpu || (!on_cpu && t.device.device_id != index))
    fail(op, "an array on the device that it names",
         "memory on DLPack device type " + std::to_string(t.device.device_type));
  if (t.ndim < 0) fail(op, "a rank >= 0", std::to_string(t.ndim));
  if (t.ndim > kMaxRank)  // before the sizes are read: whoever lies may not have that many
    fail(op, "arrays of at most " + std::to_string(kMaxRank) + " dims", std::to_string(t.ndim));
  if (t.ndim > 0 && t.shape == nullptr) fail(op, "a DLPack tensor with a shape", "none");
  a.dtype = dtype_of(t.dtype);
  if (!on_cpu) a.device = {DeviceType::kCUDA, index};
  a.data = static_cast<char*>(t.data) + t.byte_offset;
  for (int i = 0; i < t.ndim; ++i) {
    if (t.shape[i] < 0) fail(op, "sizes >= 0", std::to_string(t.shape[i]));
    a.sizes.push_back(t.shape[i]);
  }
  a.strides = a.sizes;
  int64_t compact = 1;
  for (int i = t.ndim - 1; i >= 0; --i) {
    a.strides.values[i] = t.strides ? t.strides[i] : compact;
    if (__builtin_mul_overflow(compact, std::max<int64_t>(1, t.shape[i]), &compact))
      fail(op, "fewer than 2^63 elements", "more");
  }
  if (a.numel() > 0 && t.data == nullptr) fail(op, "a DLPack tensor with memory", "a null pointer");
  const auto address = reinterpret_cast<uintptr_t>(a.data);
  if (a.numel() > 0 && (is_integer(a.dtype) || is_floating(a.dtype)) && address % size_of(a.dtype) != 0)
    fail(op, "aligned memory", "an address that is no multiple of the element's size");
  return a;
}

Array DLPack::to_array(const char* op, py::handle object, bool keep) const {
  if (py::isinstance<py::array>(object)) return from_numpy(py::reinterpret_borrow<py::array>(object), keep);
  if (py::hasattr(object, "__dlpack__") && py::hasattr(object, "__dlpack_device__")) return from_dlpack(op, object);
  throw py::type_error(std::string(op) + ": expected arrays (NumPy, torch or DLPack), got " +
                       py::type::of(object).attr("__name__").cast<std::string>());
}

py::object DLPack::to_object(const Array& array) { return py::cast(DLPackArray{array, stream_}); }

py::object Numpy::to_object(const Array& array) {
  if (array.device.type == DeviceType::kCUDA) return DLPack::to_object(array);
  return py::reinterpret_borrow<py::object>(static_cast<PyObject*>(array.owner.get()));
}

Array DLPack::empty(const Dims& sizes, DType dtype, Device device) {
  return allocate(sizes, dtype, device, stream_, keeps_stream_);
}

Numpy::~Numpy() {
  for (int i = 0; i < count_; ++i) Py_DECREF(held_[i]);
}

Array Numpy::empty(const Dims& sizes, DType dtype, Device device) {
  if (device.type == DeviceType::kCUDA) return DLPack::empty(sizes, dtype, device);
  bytes_of(sizes, dtype, device);
  std::optional<py::gil_scoped_acquire> gil;
  if (gil_is_free) gil.emplace();
  const auto& api = py::detail::npy_api::get();
  PyObject* array = api.PyArray_NewFromDescr_(api.PyArray_Type_, numpy_dtype(dtype).release().ptr(), sizes.count,
                                              sizes.values, nullptr, nullptr, 0, nullptr);
  if (array == nullptr) {
    if (const py::error_already_set error; !error.matches(PyExc_MemoryError)) throw error;
    throw NoMemory(sizes, dtype, device);
  }
  Array a;  // not as a list of members: that clears all of it first, which takes longer than a small op
  a.data = py::detail::array_proxy(array)->data, a.dtype = dtype, a.device = device;
  a.sizes = sizes, a.strides = compact_strides(sizes);
  if (count_ < kHeld) a.owner = borrowed(held_[count_++] = array);
  else a.owner = share(py::reinterpret_steal<py::object>(array));
  return a;
}

const Parallel& DLPack::parallel() { return own_threads(); }

void define_dlpack(py::module_& module) {
  py::class_<DLPackArray>(module, "DLPackArray", py::module_local(), "A result, for your framework's from_dlpack.")
      .def("__dlpack__", &DLPackArray::capsule, py::kw_only(), py::arg("stream") = py::none(),
           py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(), py::arg("copy") = py::none())
      .def("__dlpack_device__", &DLPackArray::device)
      .def_property_readonly("dtype", [](const DLPackArray& a) { return name_of(a.array.dtype); });
  py::class_<DLPack>(module, "DLPack", py::module_local(), "The ops, with results for a framework's from_dlpack.")
      .def(py::init<>())
      .def(py::init<const py::object&>(), py::arg("stream"));
}

}  // namespace boxops::numpy
