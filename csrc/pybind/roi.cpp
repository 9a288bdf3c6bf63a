#include "pybind/bind.h"

namespace boxops::numpy {

void define_roi(py::module_& module) {
  def(module, "roi_align", ops::roi_align);
  def(module, "roi_align_backward", ops::roi_align_backward);
  def(module, "multiscale_roi_align", ops::multiscale_roi_align);
  def(module, "multiscale_roi_align_backward", ops::multiscale_roi_align_backward);
  def(module, "ps_roi_align", ops::ps_roi_align);
  def(module, "ps_roi_align_backward", ops::ps_roi_align_backward);
  def(module, "roi_pool", ops::roi_pool);
  def(module, "roi_pool_with_argmax", ops::roi_pool_with_argmax);
  def(module, "roi_pool_backward", ops::roi_pool_backward);
  def(module, "ps_roi_pool", ops::ps_roi_pool);
  def(module, "ps_roi_pool_backward", ops::ps_roi_pool_backward);
}

}  // namespace boxops::numpy
