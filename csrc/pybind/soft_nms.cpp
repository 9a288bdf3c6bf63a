#include "pybind/bind.h"

namespace boxops::numpy {

void define_soft_nms(py::module_& module) { def(module, "soft_nms", ops::soft_nms); }

}  // namespace boxops::numpy
