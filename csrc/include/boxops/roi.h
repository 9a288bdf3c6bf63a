// Pooling of regions of interest, forward and backward.
//
// Every function takes features [N, C, H, W] of any floating dtype and strides and K RoIs, and gives [K, C', PH, PW],
// contiguous, of the features' dtype. It computes in double for float64 features, else in float. Where bins lie is said
// in the papers (He et al. 2017, section 3; Girshick 2015, section 2.1; Dai et al. 2016, section 3), and rounded as
// torchvision does. A RoI of an image that does not exist gives zeros and no gradient (ops check the indices where they
// are on the CPU). Nothing is read out of bounds and all work is bounded, whatever the boxes are.
//
// roi_align: the mean of bilinear samples; outside [-1, H] x [-1, W] a sample is 0. With more than one level each RoI
//   is pooled from one of them: the last whose min_side it reaches. A bin without samples is 0. Sums are not in a fixed
//   order: results differ by rounding between backends (never between runs or numbers of threads).
// ps_roi_align: the same with `aligned`, output channel c of bin (y, x) from input channel (c PH + y) PW + x.
// roi_pool: the largest value of the bin; 0 if the bin is empty. The first largest in row-major order counts; a NaN is
//   larger than any number.
// ps_roi_pool: the mean over the bin, 0 if the bin is empty; channels as for ps_roi_align.
//
// Backward functions take grad [K, C', PH, PW], contiguous, of the features' dtype, and write all of `gradients`
// (contiguous NCHW) once: deterministic. RoIs are added in their order; on CUDA in parts, which are added in order:
// roi_pool in eighths of the RoIs and bins of one maximum by pairs, roi_align in parts of the RoIs that touch a tile,
// the longer the more RoIs touch tiles.
//
// Floor: reading each feature once and writing K C' PH PW values; backward the same the other way round. Arithmetic
// (align, sampling ratio r): about K C PH PW (r + 1)^2 multiply-adds.
//
// CPU: the pixels that a group of RoIs needs are copied channels last, in blocks of channels, so that vector loops run
// over channels; channels_last features of the compute type are read in place. Memory: one block per thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

constexpr int kMaxLevels = 8;
constexpr int kMaxSamples = 4096;  // of a bin along one axis

// One level of a feature pyramid, [images, channels, height, width]; strides count elements. Read by forward
// functions, written by backward ones, which need it contiguous.
struct FeatureMap {
  void* data;
  int64_t height, width;
  int64_t image_stride, channel_stride, y_stride, x_stride;
  double scale;     // feature pixels per box unit
  double min_side;  // RoIs with sqrt(area) >= min_side belong here or to a later level
};

struct Features {
  DType dtype;  // float16, bfloat16, float32 or float64
  int64_t images, channels;
  int levels;  // 1..kMaxLevels
  FeatureMap level[kMaxLevels];
};

// Rows (image, x1, y1, x2, y2).
struct Rois {
  const void* data;
  DType dtype;
  int64_t count, row_stride, column_stride;
};

// The ops on RoIs.
enum class Pooling : uint8_t { kRoiAlign, kRoiPool, kPSRoiAlign, kPSRoiPool, kMultiscaleRoiAlign };
template <>
inline constexpr std::array<const char*, 5> kNames<Pooling> = {"roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool",
                                                               "multiscale_roi_align"};

struct Bins {
  int64_t height, width;   // bins of a RoI along y and x
  int64_t sampling_ratio;  // align: samples of a bin along each axis, at most kMaxSamples; <= 0: one per pixel
  bool aligned;            // align: half a pixel is taken off, and RoIs may be smaller than a pixel
};

namespace cpu {

// Writes the rows of Rois, [K, 5] of float32 or float64, from the boxes of each image, K in all.
BOXOPS_API void boxes_to_rois(const Boxes* boxes, int64_t images, DType dtype, void* rois);

BOXOPS_API void roi_align(const Features& features, const Rois& rois, const Bins& bins, void* out,
                          const Parallel& parallel);
BOXOPS_API void roi_align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                                   const Parallel& parallel);

BOXOPS_API void ps_roi_align(const Features& features, const Rois& rois, const Bins& bins, void* out,
                             const Parallel& parallel);
BOXOPS_API void ps_roi_align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                                      const Parallel& parallel);

// argmax [K, C, PH, PW]: y W + x of each maximum, -1 for an empty bin; may be null.
BOXOPS_API void roi_pool(const Features& features, const Rois& rois, const Bins& bins, void* out, int32_t* argmax,
                         const Parallel& parallel);
BOXOPS_API void roi_pool_backward(const void* grad, const int32_t* argmax, const Rois& rois, const Bins& bins,
                                  const Features& gradients, const Parallel& parallel);

BOXOPS_API void ps_roi_pool(const Features& features, const Rois& rois, const Bins& bins, void* out,
                            const Parallel& parallel);
BOXOPS_API void ps_roi_pool_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                                     const Parallel& parallel);

}  // namespace cpu

// The same on the device; they return a cudaError_t. roi_align has levels; the others look at the first only.
namespace cuda {

// Bytes of workspace that each function needs for these sizes (pointers in the arguments are not followed).
BOXOPS_API size_t roi_backward_workspace(const Features& gradients, const Rois& rois, const Bins& bins);

BOXOPS_API int boxes_to_rois(const Boxes* boxes, int64_t images, DType dtype, void* rois, void* stream);

BOXOPS_API int roi_align(const Features& features, const Rois& rois, const Bins& bins, void* out, void* stream);
BOXOPS_API int roi_align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                                  void* workspace, void* stream);

BOXOPS_API int ps_roi_align(const Features& features, const Rois& rois, const Bins& bins, void* out, void* stream);
BOXOPS_API int ps_roi_align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                                     void* workspace, void* stream);

BOXOPS_API int roi_pool(const Features& features, const Rois& rois, const Bins& bins, void* out, int32_t* argmax,
                        void* stream);
BOXOPS_API int roi_pool_backward(const void* grad, const int32_t* argmax, const Rois& rois, const Bins& bins,
                                 const Features& gradients, void* workspace, void* stream);

BOXOPS_API int ps_roi_pool(const Features& features, const Rois& rois, const Bins& bins, void* out, void* stream);
BOXOPS_API int ps_roi_pool_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                                    void* workspace, void* stream);

}  // namespace cuda
}  // namespace boxops
