#include "roi/roi_backward.cuh"
#include "roi/roi_forward.cuh"
#include "roi/roi_pool_backward.cuh"

namespace boxops::cuda {

size_t roi_backward_workspace(const Features& gradients, const Rois& rois, const Bins& bins, bool float64) {
  const size_t align = float64 ? backward_workspace<Pooling::kAlign, double>(gradients, rois, bins)
                               : backward_workspace<Pooling::kAlign, float>(gradients, rois, bins);
  return max_of(align, backward_workspace<Pooling::kSensitiveMean, float>(gradients, rois, bins));
}

template <class T>
int roi_pool(const Features& features, const Rois& rois, const Bins& bins, void* out, int32_t* argmax, void* stream) {
  return forward<Pooling::kMax, T>(features, rois, bins, out, argmax, stream);
}

template <class T>
int roi_pool_backward(const void* grad, const int32_t* argmax, const Rois& rois, const Bins& bins,
                      const Features& gradients, void*, void* stream) {
  return pool_backward<T>(grad, argmax, rois, bins, gradients, stream);
}

template <class T>
int ps_roi_pool(const Features& features, const Rois& rois, const Bins& bins, void* out, void* stream) {
  return forward<Pooling::kSensitiveMean, T>(features, rois, bins, out, nullptr, stream);
}

template <class T>
int ps_roi_pool_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                         void* workspace, void* stream) {
  return backward<Pooling::kSensitiveMean, T>(grad, rois, bins, gradients, workspace, stream);
}

#define INSTANTIATE(T)                                                                                             \
  template int roi_pool<T>(const Features&, const Rois&, const Bins&, void*, int32_t*, void*);                     \
  template int roi_pool_backward<T>(const void*, const int32_t*, const Rois&, const Bins&, const Features&, void*, \
                                    void*);                                                                        \
  template int ps_roi_pool<T>(const Features&, const Rois&, const Bins&, void*, void*);                            \
  template int ps_roi_pool_backward<T>(const void*, const Rois&, const Bins&, const Features&, void*, void*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace boxops::cuda
