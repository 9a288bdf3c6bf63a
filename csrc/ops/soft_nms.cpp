#include <boxops/soft_nms.h>

#include <limits>

#include <boxops/ops.h>
#include "ops/select_rows.h"

namespace boxops::ops {

std::tuple<Array, Array> soft_nms(Framework& framework, Array boxes, Array scores, double iou_threshold, int64_t method,
                                  double sigma, double score_threshold, std::optional<Array> idxs) {
  const char* op = "soft_nms";
  check_boxes(op, "boxes", boxes, "[N, 4]");
  check_per_box(op, "scores", scores, boxes);
  if (idxs) check_ids(op, "idxs", *idxs, boxes);
  check_iou_threshold(op, iou_threshold);
  if (method < 0 || method > 1) fail(op, "a method in 0..1", std::to_string(method));
  if (!(sigma > 0)) fail(op, "sigma > 0", to_string(sigma));
  check_number(op, "score_threshold", score_threshold);
  SoftNmsInput input{{boxes.data, boxes.dtype, Format::kXYXY, 1, boxes.sizes[0], 0, boxes.strides[0], boxes.strides[1]},
                     view_scalars(scores),
                     idxs.has_value(),
                     {}};
  if (idxs) input.groups = view_scalars(*idxs);
  const DType dtype = compute_type(boxes.dtype, scores.dtype);
  Array kept = framework.empty({input.boxes.count}, DType::kInt64, boxes.device);
  Array kept_scores = framework.empty({input.boxes.count}, dtype, boxes.device);
  with_compute_type(dtype, [&](auto t) {
    using T = decltype(t);
    const Decay<T> decay{method == 1, static_cast<T>(iou_threshold),
                         std::max(static_cast<T>(sigma), std::numeric_limits<T>::denorm_min()),
                         static_cast<T>(score_threshold)};
    select_rows(
        framework, op, boxes.device, {&kept, &kept_scores},
        [&] { return cpu::soft_nms<T>(input, decay, kept.as<int64_t>(), kept_scores.as<T>(), framework.parallel()); },
        [&](auto count, auto stream) {
          const auto bytes = static_cast<int64_t>(cuda::soft_nms_workspace(input.boxes.count, sizeof(T) == 8));
          const Array workspace = framework.empty({bytes}, DType::kUInt8, boxes.device);
          return cuda::soft_nms<T>(input, decay, kept.as<int64_t>(), kept_scores.as<T>(), count, workspace.data,
                                   stream);
        });
  });
  return {kept, kept_scores};
}

}  // namespace boxops::ops
