#include "pybind/bind.h"

namespace boxops::numpy {

void define_rotated(py::module_& module) {
  def(module, "rotated_box_iou", ops::rotated_box_iou);
  def(module, "rotated_nms", ops::rotated_nms);
  def(module, "batched_rotated_nms", ops::batched_rotated_nms);
}

}  // namespace boxops::numpy
