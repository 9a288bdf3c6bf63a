#include "torch_ops/bind.h"

namespace boxops::torch_ops {

BOXOPS_REGISTER({
    {"multibox_anchors(Tensor like, SymInt height, SymInt width, float[] sizes, float[] ratios, bool normalized) -> "
     "Tensor",
     Boxed<ops::multibox_anchors>::call},
    {"grid_anchors(Tensor like, SymInt[] grid_sizes, SymInt[] strides, float[] sizes, int[] size_counts, "
     "float[] ratios, int[] ratio_counts) -> Tensor",
     Boxed<ops::grid_anchors>::call},
    {"cell_anchors(Tensor like, SymInt height, SymInt width, float[] priors, float stride_y, float stride_x) -> Tensor",
     Boxed<ops::cell_anchors>::call},
})

}  // namespace boxops::torch_ops
