#include <boxops/threads.h>
#include "pybind/bind.h"

namespace boxops::numpy {

void define_dlpack(py::module_& module);
void define_anchors(py::module_& module);
void define_assignment(py::module_& module);
void define_boxes(py::module_& module);
void define_codecs(py::module_& module);
void define_fusion(py::module_& module);
void define_iou(py::module_& module);
void define_masks(py::module_& module);
void define_matching(py::module_& module);
void define_nms(py::module_& module);
void define_pipelines(py::module_& module);
void define_roi(py::module_& module);
void define_rotated(py::module_& module);
void define_sampling(py::module_& module);
void define_soft_nms(py::module_& module);

PYBIND11_MODULE(_numpy_ops, module) {
  module.doc() = "boxops for NumPy arrays and objects with __dlpack__.";
  define_dlpack(module);
  define_anchors(module);
  define_assignment(module);
  define_boxes(module);
  define_codecs(module);
  define_fusion(module);
  define_iou(module);
  define_masks(module);
  define_matching(module);
  define_nms(module);
  define_pipelines(module);
  define_roi(module);
  define_rotated(module);
  define_sampling(module);
  define_soft_nms(module);
  module.def("set_num_threads", &set_num_threads);
  module.def("get_num_threads", &num_threads);
  module.def("build_info", &ops::build_info);
}

}  // namespace boxops::numpy
