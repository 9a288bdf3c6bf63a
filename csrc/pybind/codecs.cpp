#include "pybind/bind.h"

namespace boxops::numpy {

void define_codecs(py::module_& module) {
  def<ops::encode_boxes>(module, "encode_boxes");
  def<ops::decode_boxes>(module, "decode_boxes");
  def<ops::encode_boxes_backward>(module, "encode_boxes_backward");
  def<ops::decode_boxes_backward>(module, "decode_boxes_backward");
}

}  // namespace boxops::numpy
