#include "pybind/bind.h"

namespace boxops::numpy {

void define_sampling(py::module_& module) {
  def<ops::sample_matches>(module, "sample_matches");
  def<ops::mine_hard_negatives>(module, "mine_hard_negatives");
}

}  // namespace boxops::numpy
