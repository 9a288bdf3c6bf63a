#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"soft_nms(Tensor boxes, Tensor scores, float iou_threshold, int method, float sigma, float score_threshold, "
     "Tensor? idxs) -> (Tensor, Tensor)",
     Boxed<ops::soft_nms>::call},
})

}  // namespace boxops::torch_ops
