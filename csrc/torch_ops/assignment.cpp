#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"linear_sum_assignment(Tensor cost, bool maximize, Tensor? offsets) -> (Tensor, Tensor)",
     Boxed<ops::linear_sum_assignment>::call},
})

}  // namespace boxops::torch_ops
