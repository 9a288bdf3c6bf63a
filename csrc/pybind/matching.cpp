#include "pybind/bind.h"

namespace boxops::numpy {

void define_matching(py::module_& module) {
  def(module, "match_greedy", ops::match_greedy);
  def(module, "match_greedy_matrix", ops::match_greedy_matrix);
  def(module, "match_max_iou", ops::match_max_iou);
}

}  // namespace boxops::numpy
