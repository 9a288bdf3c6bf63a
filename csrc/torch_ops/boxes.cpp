#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"box_area(Tensor boxes, int format) -> Tensor", Boxed<ops::box_area>::call},
    {"box_convert(Tensor boxes, int from_format, int to_format) -> Tensor", Boxed<ops::box_convert>::call},
    {"clip_boxes(Tensor boxes, float height, float width) -> Tensor", Boxed<ops::clip_boxes>::call},
    {"remove_small_boxes(Tensor boxes, float min_size) -> Tensor", Boxed<ops::remove_small_boxes>::call},
})

}  // namespace boxops::torch_ops
