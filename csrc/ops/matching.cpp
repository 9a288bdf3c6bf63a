#include <boxops/matching.h>

#include <limits>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {
namespace {

using Result = std::tuple<Array, Array>;

// A flat array of boxes on the device of the anchors.
Boxes view_flat(const char* op, const char* name, const Array& boxes, const char* shape, const Array& anchors) {
  check_boxes(op, name, boxes, shape);
  check_device(op, name, boxes, "anchors", anchors);
  if (boxes.sizes[0] > std::numeric_limits<int32_t>::max())
    fail(op, std::string("fewer than 2^31 ") + name, std::to_string(boxes.sizes[0]));
  return {boxes.data, boxes.dtype, Format::kXYXY, 1, boxes.sizes[0], 0, boxes.strides[0], boxes.strides[1]};
}

// `offsets` becomes contiguous and must outlive the result.
MatchInput check(Framework& framework, const char* op, const Array& anchors, const Array& gt_boxes,
                 std::optional<Array>& offsets) {
  check_boxes(op, "anchors", anchors, anchors.rank() == 3 ? "[B, A, 4]" : "[A, 4]");
  MatchInput input{{}, view_flat(op, "gt_boxes", gt_boxes, "[G, 4]", anchors), {}};
  input.images = check_offsets(framework, op, "offsets", offsets, "gt_boxes", gt_boxes);
  const int64_t batch = input.images.batch;
  const bool shared = anchors.rank() == 2;
  if (!shared && !offsets) fail(op, "anchors of shape [A, 4] without offsets", to_string(anchors.sizes));
  if (!shared && anchors.sizes[0] != batch)
    fail(op, "anchors of shape [A, 4] or [" + std::to_string(batch) + ", A, 4]", to_string(anchors.sizes));
  input.anchors = {
      anchors.data,        anchors.dtype,      Format::kXYXY, batch, anchors.sizes[-2], shared ? 0 : anchors.strides[0],
      anchors.strides[-2], anchors.strides[-1]};
  return input;
}

// New arrays for matches and IoUs.
Result results(Framework& framework, DType dtype, Device device, const Dims& sizes) {
  return {framework.empty(sizes, DType::kInt64, device), framework.empty(sizes, dtype, device)};
}

Result results(Framework& framework, DType dtype, Device device, const MatchInput& input, bool batched) {
  const Dims flat{input.anchors.count}, all{input.anchors.batch, input.anchors.count};
  return results(framework, dtype, device, batched ? all : flat);
}

template <class T>
GreedyRule<T> greedy_rule(const std::optional<double>& threshold) {
  return {threshold.has_value(), static_cast<T>(threshold.value_or(0.0))};
}

// A template, so that nothing is unused where no CUDA call is compiled.
template <class Bytes>
Array bytes(Framework& framework, const Array& like, Bytes n) {
  return framework.empty({static_cast<int64_t>(n)}, DType::kUInt8, like.device);
}

}  // namespace

Result match_max_iou(Framework& framework, Array anchors, Array gt_boxes, double high, double low,
                     bool allow_low_quality, std::optional<Array> offsets, std::optional<Array> ignore_boxes,
                     std::optional<Array> ignore_offsets, double ignore_threshold) {
  const char* op = "match_max_iou";
  const MatchInput input = check(framework, op, anchors, gt_boxes, offsets);
  check_number(op, "high", high);
  check_number(op, "low", low);
  if (!(low <= high)) fail(op, "low <= high", to_string(low) + " and " + to_string(high));
  if (!(ignore_threshold >= 0)) fail(op, "ignore_threshold >= 0", to_string(ignore_threshold));
  Boxes ignored{nullptr, anchors.dtype, Format::kXYXY, 1, 0, 0, 0, 0};
  Ragged ignored_of{nullptr, 1, 0};
  if (!ignore_boxes && ignore_offsets) fail(op, "ignore_boxes with ignore_offsets", "None");
  if (ignore_boxes) {
    ignored = view_flat(op, "ignore_boxes", *ignore_boxes, "[C, 4]", anchors);
    if (offsets && !ignore_offsets) fail(op, "ignore_offsets with offsets and ignore_boxes", "None");
    if (!offsets && ignore_offsets) fail(op, "offsets with ignore_offsets", "None");
    ignored_of = check_offsets(framework, op, "ignore_offsets", ignore_offsets, "ignore_boxes", *ignore_boxes);
    if (ignored_of.batch != input.images.batch)
      fail(op, "ignore_offsets as long as offsets, " + std::to_string(input.images.batch + 1),
           std::to_string(ignored_of.batch + 1));
  }
  const DType dtype = compute_type(anchors.dtype, gt_boxes.dtype, ignored.dtype);
  Result out = results(framework, dtype, anchors.device, input, offsets.has_value());
  Array &matches = std::get<0>(out), &ious = std::get<1>(out);
  if (matches.numel() == 0) return out;
  with_compute_type(dtype, [&](auto t) {
    using T = decltype(t);
    const MaxIouRule<T> rule{static_cast<T>(high), static_cast<T>(low),
                             allow_low_quality,    ignored,
                             ignored_of,           static_cast<T>(ignore_threshold)};
    BOXOPS_DISPATCH(
        op, anchors.device,
        cpu::match_max_iou<T>(input, rule, matches.as<int64_t>(), ious.as<T>(), framework.parallel()),
        cuda::match_max_iou<T>(
            input, rule, matches.as<int64_t>(), ious.as<T>(),
            bytes(framework, anchors, cuda::match_max_iou_workspace(input, allow_low_quality, sizeof(T) == 8)).data,
            framework.stream(anchors.device)));
  });
  return out;
}

Result match_greedy(Framework& framework, Array anchors, Array gt_boxes, std::optional<double> iou_threshold,
                    std::optional<Array> offsets) {
  const char* op = "match_greedy";
  const MatchInput input = check(framework, op, anchors, gt_boxes, offsets);
  if (iou_threshold) check_iou_threshold(op, *iou_threshold);
  const DType dtype = compute_type(anchors.dtype, gt_boxes.dtype);
  Result out = results(framework, dtype, anchors.device, input, offsets.has_value());
  Array &matches = std::get<0>(out), &ious = std::get<1>(out);
  if (matches.numel() == 0) return out;
  with_compute_type(dtype, [&](auto t) {
    using T = decltype(t);
    const auto rule = greedy_rule<T>(iou_threshold);
    BOXOPS_DISPATCH(
        op, anchors.device,
        cpu::match_greedy<T>(input, rule, matches.as<int64_t>(), ious.as<T>(), framework.parallel()),
        cuda::match_greedy<T>(input, rule, matches.as<int64_t>(), ious.as<T>(),
                              bytes(framework, anchors, cuda::match_greedy_workspace(input, sizeof(T) == 8)).data,
                              framework.stream(anchors.device)));
  });
  return out;
}

Result match_greedy_matrix(Framework& framework, Array iou, std::optional<double> iou_threshold) {
  const char* op = "match_greedy_matrix";
  check_floating(op, "iou", iou);
  const bool batched = iou.rank() == 3;
  if (batched) check_shape(op, "iou", iou, {-1, -1, -1}, "[B, A, G]");
  else check_shape(op, "iou", iou, {-1, -1}, "[A, G] or [B, A, G]");
  if (iou_threshold) check_iou_threshold(op, *iou_threshold);
  const MatchMatrix matrix{iou.data,        iou.dtype,      batched ? iou.sizes[0] : 1,
                           iou.sizes[-2],   iou.sizes[-1],  batched ? iou.strides[0] : 0,
                           iou.strides[-2], iou.strides[-1]};
  Result out = results(framework, compute_type(iou.dtype), iou.device, iou.sizes.head(1));
  Array &matches = std::get<0>(out), &ious = std::get<1>(out);
  if (matches.numel() == 0) return out;
  with_compute_type(iou.dtype, [&](auto t) {
    using T = decltype(t);
    const auto rule = greedy_rule<T>(iou_threshold);
    BOXOPS_DISPATCH(
        op, iou.device,
        cpu::match_greedy_matrix<T>(matrix, rule, matches.as<int64_t>(), ious.as<T>(), framework.parallel()),
        cuda::match_greedy_matrix<T>(
            matrix, rule, matches.as<int64_t>(), ious.as<T>(),
            bytes(framework, iou, cuda::match_greedy_matrix_workspace(matrix, sizeof(T) == 8)).data,
            framework.stream(iou.device)));
  });
  return out;
}

}  // namespace boxops::ops
