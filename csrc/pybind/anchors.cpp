#include "pybind/bind.h"

namespace boxops::numpy {

void define_anchors(py::module_& module) {
  def(module, "multibox_anchors", ops::multibox_anchors);
  def(module, "grid_anchors", ops::grid_anchors);
  def(module, "cell_anchors", ops::cell_anchors);
}

}  // namespace boxops::numpy
