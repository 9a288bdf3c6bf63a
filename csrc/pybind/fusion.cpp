#include "pybind/bind.h"

namespace boxops::numpy {

void define_fusion(py::module_& module) { def<ops::weighted_boxes_fusion>(module, "weighted_boxes_fusion"); }

}  // namespace boxops::numpy
