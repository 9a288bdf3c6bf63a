#include <boxops/ops.h>
#include <boxops/threads.h>
#include "pybind/bind.h"

PYBIND11_MODULE(_numpy_ops, module) {
  module.doc() = "boxops for NumPy arrays and objects with __dlpack__.";
  boxops::numpy::define_dlpack(module);
  boxops::numpy::define_ops(module);
  module.def("set_num_threads", &boxops::set_num_threads);
  module.def("get_num_threads", &boxops::num_threads);
  module.def("build_info", &boxops::ops::build_info);
}
