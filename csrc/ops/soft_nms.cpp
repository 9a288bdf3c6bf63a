#include <boxops/soft_nms.h>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {

std::tuple<Array, Array> soft_nms(Framework& framework, Array boxes, Array scores, double iou_threshold,
                                  SoftNmsMethod method, double sigma, double score_threshold,
                                  std::optional<Array> idxs) {
  const Call call("soft_nms", framework, boxes.device);
  const NmsInput input = check_nms(call, boxes, "[N, 4]", scores, idxs, iou_threshold);
  if (!(sigma > 0)) call.fail("sigma > 0", to_string(sigma));
  check_number(call, "score_threshold", score_threshold);
  const SoftNmsOptions options{iou_threshold, method, sigma, score_threshold};
  auto [kept, kept_scores] = call.select(
      input.boxes.count, {{DType::kInt64}, {compute_type(boxes.dtype, scores.dtype)}},
      [&](auto& to, const Parallel& parallel) {
        return cpu::soft_nms(input, options, static_cast<int64_t*>(to[0]), to[1], parallel);
      },
      [&](auto& to, auto count, auto stream) {
        return cuda::soft_nms(input, options, static_cast<int64_t*>(to[0]), to[1], count,
                              call.workspace(cuda::soft_nms_workspace(input)).data, stream);
      });
  return {kept, kept_scores};
}
BOXOPS_OP(soft_nms, "boxes", "scores", "iou_threshold", "method", "sigma", "score_threshold", "idxs");

}  // namespace boxops::ops
