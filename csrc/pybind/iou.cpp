#include "pybind/bind.h"

namespace boxops::numpy {

void define_iou(py::module_& module) {
  def(module, "iou", ops::iou);
  def(module, "iou_backward", ops::iou_backward);
}

}  // namespace boxops::numpy
