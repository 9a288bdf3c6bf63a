#include "pybind/bind.h"

namespace boxops::numpy {

void define_soft_nms(py::module_& module) { def<ops::soft_nms>(module, "soft_nms"); }

}  // namespace boxops::numpy
