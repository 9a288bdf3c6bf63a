#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"sample_matches(Tensor matches, SymInt size, float positive_fraction, Tensor seed) -> (Tensor, Tensor, Tensor)",
     Boxed<ops::sample_matches>::call},
    {"mine_hard_negatives(Tensor loss, Tensor matches, float ratio, SymInt min_negatives) -> Tensor",
     Boxed<ops::mine_hard_negatives>::call},
})

}  // namespace boxops::torch_ops
