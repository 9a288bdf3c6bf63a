#include <boxops/matching.h>

#include <limits>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {
namespace {

using Result = std::tuple<Array, Array>;

// A flat array of boxes on the device of the anchors.
Boxes view_flat(const Call& call, const char* name, const Array& boxes, const char* shape) {
  check_boxes(call, name, boxes, shape);
  check_device(call, name, boxes, "anchors");
  if (boxes.sizes[0] > std::numeric_limits<int32_t>::max())
    call.fail(std::string("fewer than 2^31 ") + name, std::to_string(boxes.sizes[0]));
  return boxes_of(boxes);
}

// `offsets` becomes contiguous and must outlive the result.
MatchInput check(const Call& call, const Array& anchors, const Array& gt_boxes, std::optional<Array>& offsets) {
  check_boxes(call, "anchors", anchors, anchors.rank() == 3 ? "[B, A, 4]" : "[A, 4]");
  MatchInput input{boxes_of(anchors), view_flat(call, "gt_boxes", gt_boxes, "[G, 4]"), {}};
  input.images = check_offsets(call, "offsets", offsets, "gt_boxes", gt_boxes);
  const int64_t batch = input.images.batch;
  const bool shared = anchors.rank() == 2;
  if (!shared && !offsets) call.fail("anchors of shape [A, 4] without offsets", to_string(anchors.sizes));
  if (!shared && anchors.sizes[0] != batch)
    call.fail("anchors of shape [A, 4] or [" + std::to_string(batch) + ", A, 4]", to_string(anchors.sizes));
  input.anchors.batch = batch;
  return input;
}

// New arrays for matches and IoUs: of each image with offsets, else [A].
Result results(const Call& call, DType dtype, const MatchInput& input, bool batched) {
  Dims sizes;
  if (batched) sizes.push_back(input.anchors.batch);
  sizes.push_back(input.anchors.count);
  return {call.empty(sizes, DType::kInt64), call.empty(sizes, dtype)};
}

GreedyOptions greedy_options(const Call& call, const std::optional<double>& iou_threshold) {
  if (iou_threshold) check_iou_threshold(call, *iou_threshold);
  return {iou_threshold.has_value(), iou_threshold.value_or(0.0)};
}

}  // namespace

Result match_max_iou(Framework& framework, Array anchors, Array gt_boxes, double high, double low,
                     bool allow_low_quality, std::optional<Array> offsets, std::optional<Array> ignore_boxes,
                     std::optional<Array> ignore_offsets, double ignore_threshold) {
  const Call call("match_max_iou", framework, anchors.device);
  const MatchInput input = check(call, anchors, gt_boxes, offsets);
  check_number(call, "high", high);
  check_number(call, "low", low);
  if (!(low <= high)) call.fail("low <= high", to_string(low) + " and " + to_string(high));
  if (!(ignore_threshold >= 0)) call.fail("ignore_threshold >= 0", to_string(ignore_threshold));
  MaxIouOptions options{high, low, allow_low_quality, {}, {nullptr, 1, 0}, ignore_threshold};
  options.ignore_boxes.dtype = anchors.dtype;
  if (!ignore_boxes && ignore_offsets) call.fail("ignore_boxes with ignore_offsets", "None");
  if (ignore_boxes) {
    options.ignore_boxes = view_flat(call, "ignore_boxes", *ignore_boxes, "[C, 4]");
    if (offsets && !ignore_offsets) call.fail("ignore_offsets with offsets and ignore_boxes", "None");
    if (!offsets && ignore_offsets) call.fail("offsets with ignore_offsets", "None");
    options.ignored = check_offsets(call, "ignore_offsets", ignore_offsets, "ignore_boxes", *ignore_boxes);
    if (options.ignored.batch != input.images.batch)
      call.fail("ignore_offsets as long as offsets, " + std::to_string(input.images.batch + 1),
                std::to_string(options.ignored.batch + 1));
  }
  const DType dtype = compute_type(anchors.dtype, gt_boxes.dtype, options.ignore_boxes.dtype);
  Result out = results(call, dtype, input, offsets.has_value());
  auto* matches = std::get<0>(out).as<int64_t>();
  void* ious = std::get<1>(out).data;
  if (std::get<0>(out).numel() == 0) return out;
  call.run([&](const Parallel& parallel) { cpu::match_max_iou(input, options, matches, ious, parallel); },
           [&](auto stream) {
             return cuda::match_max_iou(input, options, matches, ious,
                                        call.workspace(cuda::match_max_iou_workspace(input, options)).data, stream);
           });
  return out;
}
BOXOPS_OP(match_max_iou, "anchors", "gt_boxes", "high", "low", "allow_low_quality", "offsets", "ignore_boxes",
          "ignore_offsets", "ignore_threshold");

Result match_greedy(Framework& framework, Array anchors, Array gt_boxes, std::optional<double> iou_threshold,
                    std::optional<Array> offsets) {
  const Call call("match_greedy", framework, anchors.device);
  const MatchInput input = check(call, anchors, gt_boxes, offsets);
  const GreedyOptions options = greedy_options(call, iou_threshold);
  Result out = results(call, compute_type(anchors.dtype, gt_boxes.dtype), input, offsets.has_value());
  auto* matches = std::get<0>(out).as<int64_t>();
  void* ious = std::get<1>(out).data;
  if (std::get<0>(out).numel() == 0) return out;
  call.run([&](const Parallel& parallel) { cpu::match_greedy(input, options, matches, ious, parallel); },
           [&](auto stream) {
             return cuda::match_greedy(input, options, matches, ious,
                                       call.workspace(cuda::match_greedy_workspace(input)).data, stream);
           });
  return out;
}
BOXOPS_OP(match_greedy, "anchors", "gt_boxes", "iou_threshold", "offsets");

Result match_greedy_matrix(Framework& framework, Array iou, std::optional<double> iou_threshold) {
  const Call call("match_greedy_matrix", framework, iou.device);
  check_floating(call, "iou", iou);
  const bool batched = iou.rank() == 3;
  if (batched) check_shape(call, "iou", iou, {-1, -1, -1}, "[B, A, G]");
  else check_shape(call, "iou", iou, {-1, -1}, "[A, G] or [B, A, G]");
  const GreedyOptions options = greedy_options(call, iou_threshold);
  const MatchMatrix matrix{iou.data,        iou.dtype,      batched ? iou.sizes[0] : 1,
                           iou.sizes[-2],   iou.sizes[-1],  batched ? iou.strides[0] : 0,
                           iou.strides[-2], iou.strides[-1]};
  const Dims sizes = iou.sizes.head(1);
  Result out{call.empty(sizes, DType::kInt64), call.empty(sizes, compute_type(iou.dtype))};
  auto* matches = std::get<0>(out).as<int64_t>();
  void* ious = std::get<1>(out).data;
  if (std::get<0>(out).numel() == 0) return out;
  call.run([&](const Parallel& parallel) { cpu::match_greedy_matrix(matrix, options, matches, ious, parallel); },
           [&](auto stream) {
             return cuda::match_greedy_matrix(matrix, options, matches, ious,
                                              call.workspace(cuda::match_greedy_matrix_workspace(matrix)).data, stream);
           });
  return out;
}
BOXOPS_OP(match_greedy_matrix, "iou", "iou_threshold");

}  // namespace boxops::ops
