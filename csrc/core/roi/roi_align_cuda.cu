#include "roi/roi_backward.cuh"
#include "roi/roi_forward.cuh"
#include "roi/roi_sensitive_backward.cuh"

namespace boxops::cuda {

int roi_align(const Features& features, const Rois& rois, const Bins& bins, void* out, void* stream) {
  return with_compute_type(features.dtype, [&](auto t) {
    return forward<Pooling::kAlign, decltype(t)>(features, rois, bins, out, nullptr, stream);
  });
}

int roi_align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients, void* workspace,
                       void* stream) {
  return with_compute_type(gradients.dtype, [&](auto t) {
    return align_backward<decltype(t)>(grad, rois, bins, gradients, workspace, stream);
  });
}

int ps_roi_align(const Features& features, const Rois& rois, const Bins& bins, void* out, void* stream) {
  return with_compute_type(features.dtype, [&](auto t) {
    return forward<Pooling::kSensitiveAlign, decltype(t)>(features, rois, bins, out, nullptr, stream);
  });
}

int ps_roi_align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                          void* workspace, void* stream) {
  return with_compute_type(gradients.dtype, [&](auto t) {
    return sensitive_backward<Pooling::kSensitiveAlign, decltype(t)>(grad, rois, bins, gradients, workspace, stream);
  });
}

}  // namespace boxops::cuda
