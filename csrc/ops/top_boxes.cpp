#include <boxops/top_boxes.h>

#include <boxops/registry.h>
#include "ops/check.h"

namespace boxops::ops {

static std::tuple<Array, Array> top_boxes(Framework& framework, Array boxes, Array scores, double min_score,
                                          TopMethod method) {
  const Call call("top_boxes", framework, boxes.device);
  check_boxes(call, "boxes", boxes, "[N, 4]");
  check_per_box(call, "scores", scores, boxes);
  check_number(call, "min_score", min_score);
  const Boxes view = boxes_of(boxes);
  const Scalars numbers = scalars_of(scores);
  auto [kept, values] = call.select(
      view.count, {{DType::kInt64}, {compute_type(boxes.dtype, scores.dtype)}},
      [&](auto& to, const Parallel&) {
        return cpu::top_boxes(view, numbers, min_score, method, static_cast<int64_t*>(to[0]), to[1]);
      },
      [&](auto& to, auto count, auto stream) {
        return cuda::top_boxes(view, numbers, min_score, method, static_cast<int64_t*>(to[0]), to[1], count,
                               call.workspace(cuda::top_boxes_workspace(view.count)).data, stream);
      });
  return {kept, values};
}
BOXOPS_OP(top_boxes, "boxes", "scores", "min_score", "method");

}  // namespace boxops::ops
