#include "pybind/bind.h"

namespace boxops::numpy {

void define_masks(py::module_& module) {
  def<ops::paste_masks>(module, "paste_masks");
  def<ops::masks_to_boxes>(module, "masks_to_boxes");
}

}  // namespace boxops::numpy
