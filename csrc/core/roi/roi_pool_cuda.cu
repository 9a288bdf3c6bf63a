#include "roi/roi_backward.cuh"
#include "roi/roi_forward.cuh"
#include "roi/roi_pool_backward.cuh"
#include "roi/roi_sensitive_backward.cuh"

namespace boxops::cuda {

size_t roi_backward_workspace(const Features& gradients, const Rois& rois, const Bins& bins) {
  return with_compute_type(gradients.dtype, [&](auto t) {
    using T = decltype(t);
    return max_of(align_backward_workspace<T>(gradients, rois),
                  max_of(sensitive_backward_workspace<Pooling::kSensitiveAlign, T>(gradients, rois, bins),
                         sensitive_backward_workspace<Pooling::kSensitiveMean, T>(gradients, rois, bins)));
  });
}

int roi_pool(const Features& features, const Rois& rois, const Bins& bins, void* out, int32_t* argmax, void* stream) {
  return with_compute_type(features.dtype, [&](auto t) {
    return forward<Pooling::kMax, decltype(t)>(features, rois, bins, out, argmax, stream);
  });
}

int roi_pool_backward(const void* grad, const int32_t* argmax, const Rois& rois, const Bins& bins,
                      const Features& gradients, void*, void* stream) {
  return with_compute_type(
      gradients.dtype, [&](auto t) { return pool_backward<decltype(t)>(grad, argmax, rois, bins, gradients, stream); });
}

int ps_roi_pool(const Features& features, const Rois& rois, const Bins& bins, void* out, void* stream) {
  return with_compute_type(features.dtype, [&](auto t) {
    return forward<Pooling::kSensitiveMean, decltype(t)>(features, rois, bins, out, nullptr, stream);
  });
}

int ps_roi_pool_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                         void* workspace, void* stream) {
  return with_compute_type(gradients.dtype, [&](auto t) {
    return sensitive_backward<Pooling::kSensitiveMean, decltype(t)>(grad, rois, bins, gradients, workspace, stream);
  });
}

}  // namespace boxops::cuda
