#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"encode_boxes(Tensor boxes, Tensor anchors, int coding, float[] weights, float[] stride) -> Tensor",
     Boxed<ops::encode_boxes>::call},
    {"decode_boxes(Tensor codes, Tensor anchors, int coding, float[] weights, float[] stride, float clip, "
     "float[] size) -> Tensor",
     Boxed<ops::decode_boxes>::call},
    {"encode_boxes_backward(Tensor grad, Tensor boxes, Tensor anchors, int coding, float[] weights, float[] stride, "
     "bool of_anchors) -> (Tensor, Tensor)",
     Boxed<ops::encode_boxes_backward>::call},
    {"decode_boxes_backward(Tensor grad, Tensor codes, Tensor anchors, int coding, float[] weights, float[] stride, "
     "float clip, float[] size, bool of_anchors) -> (Tensor, Tensor)",
     Boxed<ops::decode_boxes_backward>::call},
})

}  // namespace boxops::torch_ops
