#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"generate_proposals(Tensor objectness, Tensor deltas, Tensor anchors, SymInt[] num_anchors_per_level, "
     "float[] image_sizes, SymInt pre_nms_top_n, SymInt post_nms_top_n, float nms_threshold, float score_threshold, "
     "float min_size, float[] weights, float clip) -> (Tensor, Tensor, Tensor)",
     Boxed<ops::generate_proposals>::call},
    {"detect(Tensor boxes, Tensor scores, float score_threshold, float iou_threshold, SymInt max_detections, "
     "SymInt? topk_per_class, float? min_size, bool class_agnostic) -> (Tensor, Tensor, Tensor, Tensor)",
     Boxed<ops::detect>::call},
})

}  // namespace boxops::torch_ops
