#include "pybind/bind.h"

namespace boxops::numpy {

void define_iou(py::module_& module) {
  def<ops::iou>(module, "iou");
  def<ops::iou_backward>(module, "iou_backward");
}

}  // namespace boxops::numpy
