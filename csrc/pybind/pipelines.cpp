#include "pybind/bind.h"

namespace boxops::numpy {

void define_pipelines(py::module_& module) {
  def(module, "generate_proposals", ops::generate_proposals);
  def(module, "detect", ops::detect);
}

}  // namespace boxops::numpy
