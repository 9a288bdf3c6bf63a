#include "torch_ops/bind.h"

namespace boxops::torch_ops {

// images: the image of each box [K] beside boxes [K, 4]; without it, it is the first column of boxes [K, 5].
BOXOPS_REGISTER({
    {"roi_align(Tensor input, Tensor boxes, Tensor? images, SymInt height, SymInt width, float spatial_scale, "
     "int sampling_ratio, bool aligned) -> Tensor",
     Boxed<ops::roi_align>::call},
    {"roi_align_backward(Tensor grad, Tensor boxes, Tensor? images, SymInt count, SymInt height, SymInt width, "
     "float spatial_scale, int sampling_ratio, bool aligned) -> Tensor",
     Boxed<ops::roi_align_backward>::call},
    {"multiscale_roi_align(Tensor[] features, Tensor boxes, Tensor? images, SymInt height, SymInt width, "
     "float[] scales, int sampling_ratio, bool aligned, float canonical_scale, int canonical_level) -> Tensor",
     Boxed<ops::multiscale_roi_align>::call},
    {"multiscale_roi_align_backward(Tensor grad, Tensor boxes, Tensor? images, SymInt count, SymInt[] heights, "
     "SymInt[] widths, float[] scales, int sampling_ratio, bool aligned, float canonical_scale, int canonical_level) "
     "-> Tensor",
     Boxed<ops::multiscale_roi_align_backward>::call},
    {"ps_roi_align(Tensor input, Tensor boxes, Tensor? images, SymInt height, SymInt width, float spatial_scale, "
     "int sampling_ratio) -> Tensor",
     Boxed<ops::ps_roi_align>::call},
    {"ps_roi_align_backward(Tensor grad, Tensor boxes, Tensor? images, SymInt count, SymInt height, SymInt width, "
     "float spatial_scale, int sampling_ratio) -> Tensor",
     Boxed<ops::ps_roi_align_backward>::call},
    {"roi_pool(Tensor input, Tensor boxes, Tensor? images, SymInt height, SymInt width, float spatial_scale) -> Tensor",
     Boxed<ops::roi_pool>::call},
    {"roi_pool_with_argmax(Tensor input, Tensor boxes, Tensor? images, SymInt height, SymInt width, "
     "float spatial_scale) -> (Tensor, Tensor)",
     Boxed<ops::roi_pool_with_argmax>::call},
    {"roi_pool_backward(Tensor grad, Tensor argmax, Tensor boxes, Tensor? images, SymInt count, SymInt height, "
     "SymInt width, float spatial_scale) -> Tensor",
     Boxed<ops::roi_pool_backward>::call},
    {"ps_roi_pool(Tensor input, Tensor boxes, Tensor? images, SymInt height, SymInt width, float spatial_scale) "
     "-> Tensor",
     Boxed<ops::ps_roi_pool>::call},
    {"ps_roi_pool_backward(Tensor grad, Tensor boxes, Tensor? images, SymInt count, SymInt height, SymInt width, "
     "float spatial_scale) -> Tensor",
     Boxed<ops::ps_roi_pool_backward>::call},
})

}  // namespace boxops::torch_ops
