#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"weighted_boxes_fusion(Tensor[] boxes, Tensor[] scores, Tensor[] labels, float[] weights, float iou_threshold, "
     "float skip_box_threshold, int confidence, bool allows_overflow) -> (Tensor, Tensor, Tensor)",
     Boxed<ops::weighted_boxes_fusion>::call},
})

}  // namespace boxops::torch_ops
