#include "pybind/bind.h"

namespace boxops::numpy {

void define_anchors(py::module_& module) {
  def<ops::multibox_anchors>(module, "multibox_anchors");
  def<ops::grid_anchors>(module, "grid_anchors");
  def<ops::cell_anchors>(module, "cell_anchors");
}

}  // namespace boxops::numpy
