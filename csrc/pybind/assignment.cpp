#include "pybind/bind.h"

namespace boxops::numpy {

void define_assignment(py::module_& module) {
  def<ops::linear_sum_assignment>(module, "linear_sum_assignment");
  def<ops::detr_cost>(module, "detr_cost");
}

}  // namespace boxops::numpy
