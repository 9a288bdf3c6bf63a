#include "pybind/bind.h"

namespace boxops::numpy {

void define_assignment(py::module_& module) { def(module, "linear_sum_assignment", ops::linear_sum_assignment); }

}  // namespace boxops::numpy
