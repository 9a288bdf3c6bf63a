#include "pybind/bind.h"

namespace boxops::numpy {

void define_nms(py::module_& module) {
  def(module, "nms", ops::nms);
  def(module, "batched_nms", ops::batched_nms);
  def(module, "nms_padded", ops::nms_padded);
}

}  // namespace boxops::numpy
