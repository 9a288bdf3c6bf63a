// How boxes are written relative to anchors, and read back. xyxy corners in, xyxy corners out.
//
// rcnn: codes (wx dx, wy dy, ww dw, wh dh) with dx = (cx - cx_a) / w_a, dw = log(w / w_a); Girshick et al. 2014,
//       appendix C. The weights are torchvision's; SSD's variances are their inverses. dw and dh are clipped from
//       above at `clip` before exp.
// yolo: (x, y, w, h) of the cell the anchor is centred on, of side `stride`.
//       v1 (Redmon et al. 2016, section 2): x, y in cells from the cell's corner; w, h the square roots of the sizes
//       in units of the anchor, which is the whole image.
//       v2, v3 (Redmon, Farhadi 2017, section 2; 2018, section 2.1): x, y before the sigmoid, w, h logs over the prior.
#pragma once

#include "boxes/boxes.h"

namespace boxops {

enum class Coding : uint8_t { kRCNN, kYOLOv1, kYOLO };

struct CodecOptions {
  Coding coding;
  double weights[4];          // rcnn
  double clip;                // of dw and dh (all but v1), log of the largest ratio; infinity for none
  double stride_x, stride_y;  // yolo: the cell's sides, in the boxes' unit
};

// The arithmetic below is torchvision's BoxCoder, step by step.
template <class T>
BOXOPS_HD Box<T> decode_box(const Box<T>& code, const Box<T>& anchor, const CodecOptions& o) {
  const T w = anchor.x2 - anchor.x1, h = anchor.y2 - anchor.y1;
  const T cx = anchor.x1 + T(0.5) * w, cy = anchor.y1 + T(0.5) * h;
  T x, y, half_w, half_h;
  if (o.coding == Coding::kRCNN) {
    const T clip = static_cast<T>(o.clip);
    const T dw = code.x2 / static_cast<T>(o.weights[2]), dh = code.y2 / static_cast<T>(o.weights[3]);
    x = (code.x1 / static_cast<T>(o.weights[0])) * w + cx;
    y = (code.y1 / static_cast<T>(o.weights[1])) * h + cy;
    half_w = T(0.5) * (std::exp(dw > clip ? clip : dw) * w);
    half_h = T(0.5) * (std::exp(dh > clip ? clip : dh) * h);
  } else {
    const bool v1 = o.coding == Coding::kYOLOv1;
    const T clip = static_cast<T>(o.clip);
    const T tx = v1 ? code.x1 : T(1) / (T(1) + std::exp(-code.x1)),
            ty = v1 ? code.y1 : T(1) / (T(1) + std::exp(-code.y1));
    x = cx + (tx - T(0.5)) * static_cast<T>(o.stride_x);
    y = cy + (ty - T(0.5)) * static_cast<T>(o.stride_y);
    half_w = T(0.5) * ((v1 ? code.x2 * code.x2 : std::exp(code.x2 > clip ? clip : code.x2)) * w);
    half_h = T(0.5) * ((v1 ? code.y2 * code.y2 : std::exp(code.y2 > clip ? clip : code.y2)) * h);
  }
  return {x - half_w, y - half_h, x + half_w, y + half_h};
}

}  // namespace boxops
