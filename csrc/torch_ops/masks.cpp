#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"paste_masks(Tensor masks, Tensor boxes, SymInt height, SymInt width, SymInt padding, float? threshold) -> Tensor",
     Boxed<ops::paste_masks>::call},
    {"masks_to_boxes(Tensor masks) -> Tensor", Boxed<ops::masks_to_boxes>::call},
})

}  // namespace boxops::torch_ops
