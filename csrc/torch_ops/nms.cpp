#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor", Boxed<ops::nms>::call},
    {"batched_nms(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor",
     Boxed<ops::batched_nms>::call},
    {"nms_padded(Tensor boxes, Tensor scores, float iou_threshold, SymInt max_output, Tensor? labels, "
     "float? score_threshold) -> (Tensor, Tensor)",
     Boxed<ops::nms_padded>::call},
})

}  // namespace boxops::torch_ops
