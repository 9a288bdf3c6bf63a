#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"match_greedy(Tensor anchors, Tensor gt_boxes, float? iou_threshold, Tensor? offsets) -> (Tensor, Tensor)",
     Boxed<ops::match_greedy>::call},
    {"match_greedy_matrix(Tensor iou, float? iou_threshold) -> (Tensor, Tensor)",
     Boxed<ops::match_greedy_matrix>::call},
    {"match_max_iou(Tensor anchors, Tensor gt_boxes, float high, float low, bool allow_low_quality, Tensor? offsets, "
     "Tensor? ignore_boxes, Tensor? ignore_offsets, float ignore_threshold) -> (Tensor, Tensor)",
     Boxed<ops::match_max_iou>::call},
})

}  // namespace boxops::torch_ops
