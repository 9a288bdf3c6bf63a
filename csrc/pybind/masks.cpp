#include "pybind/bind.h"

namespace boxops::numpy {

void define_masks(py::module_& module) {
  def(module, "paste_masks", ops::paste_masks);
  def(module, "masks_to_boxes", ops::masks_to_boxes);
}

}  // namespace boxops::numpy
