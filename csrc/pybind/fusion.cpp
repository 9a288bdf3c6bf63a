#include "pybind/bind.h"

namespace boxops::numpy {

void define_fusion(py::module_& module) { def(module, "weighted_boxes_fusion", ops::weighted_boxes_fusion); }

}  // namespace boxops::numpy
