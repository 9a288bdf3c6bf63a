#include "pybind/bind.h"
#include "pybind/threads.h"

namespace boxops::numpy {

void define_dlpack_array(py::module_& module);
void define_boxes(py::module_& module);
void define_iou(py::module_& module);
void define_nms(py::module_& module);
void define_pipelines(py::module_& module);

PYBIND11_MODULE(_numpy_ops, module) {
  module.doc() = "boxops for NumPy arrays and objects with __dlpack__.";
  define_dlpack_array(module);
  define_boxes(module);
  define_iou(module);
  define_nms(module);
  define_pipelines(module);
  module.def("set_num_threads", &set_num_threads);
  module.def("get_num_threads", &num_threads);
  module.def("build_info", &ops::build_info);
}

}  // namespace boxops::numpy
