#include "pybind/bind.h"

namespace boxops::numpy {

void define_assignment(py::module_& module) {
  def(module, "linear_sum_assignment", ops::linear_sum_assignment);
  def(module, "detr_cost", ops::detr_cost);
}

}  // namespace boxops::numpy
