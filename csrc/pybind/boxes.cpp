#include "pybind/bind.h"

namespace boxops::numpy {

void define_boxes(py::module_& module) {
  def(module, "box_area", ops::box_area);
  def(module, "box_convert", ops::box_convert);
  def(module, "clip_boxes", ops::clip_boxes);
  def(module, "remove_small_boxes", ops::remove_small_boxes);
}

}  // namespace boxops::numpy
