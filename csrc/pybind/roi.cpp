#include "pybind/bind.h"

namespace boxops::numpy {

void define_roi(py::module_& module) {
  def<ops::roi_align>(module, "roi_align");
  def<ops::roi_align_backward>(module, "roi_align_backward");
  def<ops::multiscale_roi_align>(module, "multiscale_roi_align");
  def<ops::multiscale_roi_align_backward>(module, "multiscale_roi_align_backward");
  def<ops::ps_roi_align>(module, "ps_roi_align");
  def<ops::ps_roi_align_backward>(module, "ps_roi_align_backward");
  def<ops::roi_pool>(module, "roi_pool");
  def<ops::roi_pool_with_argmax>(module, "roi_pool_with_argmax");
  def<ops::roi_pool_backward>(module, "roi_pool_backward");
  def<ops::ps_roi_pool>(module, "ps_roi_pool");
  def<ops::ps_roi_pool_backward>(module, "ps_roi_pool_backward");
}

}  // namespace boxops::numpy
