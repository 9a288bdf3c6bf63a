#include "pybind/bind.h"

namespace boxops::numpy {

void define_boxes(py::module_& module) {
  def<ops::box_area>(module, "box_area");
  def<ops::box_convert>(module, "box_convert");
  def<ops::clip_boxes>(module, "clip_boxes");
  def<ops::remove_small_boxes>(module, "remove_small_boxes");
}

}  // namespace boxops::numpy
