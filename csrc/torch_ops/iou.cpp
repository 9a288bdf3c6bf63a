#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"iou(Tensor boxes1, Tensor boxes2, int measure, bool paired, int format, float iou_eps, float eps) -> Tensor",
     Boxed<ops::iou>::call},
    {"iou_backward(Tensor grad, Tensor boxes1, Tensor boxes2, int measure, bool paired, int format, float iou_eps, "
     "float eps) "
     "-> (Tensor, Tensor)",
     Boxed<ops::iou_backward>::call},
})

}  // namespace boxops::torch_ops
