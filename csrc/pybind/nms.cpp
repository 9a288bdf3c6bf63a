#include "pybind/bind.h"

namespace boxops::numpy {

void define_nms(py::module_& module) {
  def<ops::nms>(module, "nms");
  def<ops::batched_nms>(module, "batched_nms");
  def<ops::nms_padded>(module, "nms_padded");
}

}  // namespace boxops::numpy
