#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"linear_sum_assignment(Tensor cost, bool maximize, Tensor? offsets, int on_invalid) -> (Tensor, Tensor)",
     Boxed<ops::linear_sum_assignment>::call},
    {"detr_cost(Tensor logits, Tensor boxes, Tensor gt_labels, Tensor gt_boxes, Tensor offsets, float class_weight, "
     "float box_weight, float giou_weight, bool focal) -> Tensor",
     Boxed<ops::detr_cost>::call},
})

}  // namespace boxops::torch_ops
