#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"rotated_box_iou(Tensor boxes1, Tensor boxes2, bool paired) -> Tensor", Boxed<ops::rotated_box_iou>::call},
    {"rotated_nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor", Boxed<ops::rotated_nms>::call},
    {"batched_rotated_nms(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor",
     Boxed<ops::batched_rotated_nms>::call},
})

}  // namespace boxops::torch_ops
