#include "pybind/bind.h"

namespace boxops::numpy {

void define_pipelines(py::module_& module) {
  def<ops::generate_proposals>(module, "generate_proposals");
  def<ops::detect>(module, "detect");
}

}  // namespace boxops::numpy
