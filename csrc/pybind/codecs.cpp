#include "pybind/bind.h"

namespace boxops::numpy {

void define_codecs(py::module_& module) {
  def(module, "encode_boxes", ops::encode_boxes);
  def(module, "decode_boxes", ops::decode_boxes);
  def(module, "encode_boxes_backward", ops::encode_boxes_backward);
  def(module, "decode_boxes_backward", ops::decode_boxes_backward);
}

}  // namespace boxops::numpy
