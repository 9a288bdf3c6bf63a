#include "pybind/bind.h"

namespace boxops::numpy {

void define_sampling(py::module_& module) {
  def(module, "sample_matches", ops::sample_matches);
  def(module, "mine_hard_negatives", ops::mine_hard_negatives);
}

}  // namespace boxops::numpy
