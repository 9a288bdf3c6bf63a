#include "pybind/bind.h"

namespace boxops::numpy {

void define_rotated(py::module_& module) {
  def<ops::rotated_box_iou>(module, "rotated_box_iou");
  def<ops::rotated_nms>(module, "rotated_nms");
  def<ops::batched_rotated_nms>(module, "batched_rotated_nms");
}

}  // namespace boxops::numpy
