// How boxes are written relative to anchors, and read back. xyxy corners in, xyxy corners out.
//
// rcnn: deltas (wx dx, wy dy, ww dw, wh dh) with dx = (cx - cx_a) / w_a, dw = log(w / w_a); Girshick et al. 2014,
//       appendix C. The weights are torchvision's; SSD's variances are their inverses. dw and dh are clipped from
//       above at `clip` before exp.
// yolo: (x, y, w, h) of the cell the anchor is centred on, of side `stride`.
//       v1 (Redmon et al. 2016, section 2): x, y in cells from the cell's corner; w, h the square roots of the sizes
//       in units of the anchor, which is the whole image.
//       v2, v3 (Redmon, Farhadi 2017, section 2; 2018, section 2.1): x, y before the sigmoid, w, h logs over the prior.
//       A centre on the cell's border or beyond has no finite logit: encoding holds it 1e-6 cells inside.
//
// Inputs are two views [B, N, 4] of one B and N, of any floating dtype; outputs are [B, N, 4] of the compute type,
// contiguous. A box is read and written alone: NaN, inf and anchors without width or height give what the formulas
// give. Memory-bound: the floor is bytes read plus bytes written over the memory bandwidth. No workspace.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

enum class Coding : uint8_t { kRCNN, kYOLOv1, kYOLOv2, kYOLOv3 };  // the last two are one
template <>
inline constexpr std::array<const char*, 4> kNames<Coding> = {"rcnn", "yolo_v1", "yolo_v2", "yolo_v3"};

struct CodecOptions {
  Coding coding;
  double weights[4];          // rcnn
  double clip;                // of dw and dh (all but v1), log of the largest ratio; infinity for none
  double stride_x, stride_y;  // yolo: the cell's sides, in the boxes' unit
};

// The images that decoded boxes are clipped to: none, one, or several of equally many boxes, one after another.
struct ImageSizes {
  int64_t count;
  const double* sides;  // height and width of each, on the host
};

namespace cpu {

BOXOPS_API void encode_boxes(const Boxes& boxes, const Boxes& anchors, const CodecOptions& options, void* deltas,
                             const Parallel& parallel);

BOXOPS_API void decode_boxes(const Boxes& deltas, const Boxes& anchors, const CodecOptions& options,
                             const ImageSizes& sizes, void* boxes, const Parallel& parallel);

// Gradients of the functions above, given those of their results, [B, N, 4] of the compute type; grad_anchors may be
// null.
BOXOPS_API void encode_boxes_backward(const Boxes& boxes, const Boxes& anchors, const CodecOptions& options,
                                      const Boxes& grad, void* grad_boxes, void* grad_anchors,
                                      const Parallel& parallel);

BOXOPS_API void decode_boxes_backward(const Boxes& deltas, const Boxes& anchors, const CodecOptions& options,
                                      const ImageSizes& sizes, const Boxes& grad, void* grad_deltas, void* grad_anchors,
                                      const Parallel& parallel);

}  // namespace cpu

namespace cuda {

BOXOPS_API int encode_boxes(const Boxes& boxes, const Boxes& anchors, const CodecOptions& options, void* deltas,
                            void* stream);

BOXOPS_API int decode_boxes(const Boxes& deltas, const Boxes& anchors, const CodecOptions& options,
                            const ImageSizes& sizes, void* boxes, void* stream);

BOXOPS_API int encode_boxes_backward(const Boxes& boxes, const Boxes& anchors, const CodecOptions& options,
                                     const Boxes& grad, void* grad_boxes, void* grad_anchors, void* stream);

BOXOPS_API int decode_boxes_backward(const Boxes& deltas, const Boxes& anchors, const CodecOptions& options,
                                     const ImageSizes& sizes, const Boxes& grad, void* grad_deltas, void* grad_anchors,
                                     void* stream);

}  // namespace cuda

}  // namespace boxops
