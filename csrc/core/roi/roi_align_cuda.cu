#include "roi/roi_backward.cuh"
#include "roi/roi_forward.cuh"

namespace boxops::cuda {

template <class T>
int roi_align(const Features& features, const Rois& rois, const Bins& bins, void* out, void* stream) {
  return forward<Pooling::kAlign, T>(features, rois, bins, out, nullptr, stream);
}

template <class T>
int roi_align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients, void* workspace,
                       void* stream) {
  return backward<Pooling::kAlign, T>(grad, rois, bins, gradients, workspace, stream);
}

template <class T>
int ps_roi_align(const Features& features, const Rois& rois, const Bins& bins, void* out, void* stream) {
  return forward<Pooling::kSensitiveAlign, T>(features, rois, bins, out, nullptr, stream);
}

template <class T>
int ps_roi_align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                          void* workspace, void* stream) {
  return backward<Pooling::kSensitiveAlign, T>(grad, rois, bins, gradients, workspace, stream);
}

#define INSTANTIATE(T)                                                                                      \
  template int roi_align<T>(const Features&, const Rois&, const Bins&, void*, void*);                       \
  template int roi_align_backward<T>(const void*, const Rois&, const Bins&, const Features&, void*, void*); \
  template int ps_roi_align<T>(const Features&, const Rois&, const Bins&, void*, void*);                    \
  template int ps_roi_align_backward<T>(const void*, const Rois&, const Bins&, const Features&, void*, void*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace boxops::cuda
