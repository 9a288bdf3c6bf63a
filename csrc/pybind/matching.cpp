#include "pybind/bind.h"

namespace boxops::numpy {

void define_matching(py::module_& module) {
  def<ops::match_greedy>(module, "match_greedy");
  def<ops::match_greedy_matrix>(module, "match_greedy_matrix");
  def<ops::match_max_iou>(module, "match_max_iou");
}

}  // namespace boxops::numpy
