#include <boxops/assignment.h>

#include <cmath>

#include <boxops/detr_cost.h>
#include <boxops/ops.h>
#include "common/dtype.h"
#include "ops/check.h"

namespace boxops::ops {
namespace {

// Throws what the CPU found; CUDA cannot say it without waiting.
void check_fault(const char* op, const AssignmentInput& in, const AssignmentFault& fault, int rank) {
  if (fault.problem < 0) return;
  const std::string problem = rank == 2 && !in.is_ragged ? "" : " (problem " + std::to_string(fault.problem) + ")";
  if (fault.row < 0) fail(op, "a cost matrix with a finite assignment", "none" + problem);
  Dims place;
  if (rank == 3) place.push_back(fault.problem);
  place.push_back(in.is_ragged ? in.first_row(fault.problem) + fault.row : fault.row);
  place.push_back(fault.column);
  fail(op, in.maximize ? "costs without NaN or inf" : "costs without NaN or -inf",
       (std::isnan(fault.value) ? "nan" : to_string(fault.value)) + (" at " + to_string(place)) + problem);
}

}  // namespace

std::tuple<Array, Array> linear_sum_assignment(Framework& framework, Array cost, bool maximize,
                                               std::optional<Array> offsets, int64_t on_invalid) {
  const char* op = "linear_sum_assignment";
  if (on_invalid < 0 || on_invalid > 1) fail(op, "on_invalid in 0..1", std::to_string(on_invalid));
  check_number_or_bool(op, "cost", cost);
  if (offsets) check_shape(op, "cost", cost, {-1, -1}, "[R, m]");
  else if (cost.rank() != 2 && cost.rank() != 3) fail(op, "cost of shape [n, m] or [B, n, m]", to_string(cost.sizes));
  const bool batched = cost.rank() == 3;
  AssignmentInput in{cost.data,
                     number_type(cost.dtype),
                     batched ? cost.strides[0] : 0,
                     cost.strides[-2],
                     cost.strides[-1],
                     offsets.has_value(),
                     {},
                     batched ? cost.sizes[0] : 1,
                     cost.sizes[-2],
                     cost.sizes[-1],
                     maximize};
  if (offsets) in.ragged = check_offsets(framework, op, "offsets", offsets, "rows", cost), in.batch = in.ragged.batch;
  Dims sizes;
  if (batched) sizes.push_back(in.batch);
  sizes.push_back(in.is_ragged ? in.rows : std::min(in.rows, in.columns));
  Array row_ind = framework.empty(sizes, DType::kInt64, cost.device);
  Array col_ind = framework.empty(sizes, DType::kInt64, cost.device);
  int64_t *rows = row_ind.as<int64_t>(), *columns = col_ind.as<int64_t>();
  AssignmentFault fault;
  BOXOPS_DISPATCH(op, cost.device, fault = cpu::linear_sum_assignment(in, rows, columns, framework.parallel()), ([&] {
                    const auto bytes = static_cast<int64_t>(cuda::linear_sum_assignment_workspace(in));
                    const Array workspace = framework.empty({bytes}, DType::kUInt8, cost.device);
                    return cuda::linear_sum_assignment(in, rows, columns, workspace.data,
                                                       framework.stream(cost.device));
                  }()));
  if (on_invalid == 0) check_fault(op, in, fault, cost.rank());
  return {row_ind, col_ind};
}

namespace {

void check_range(const char* op, const DetrCostInput& in) {
  for (int64_t g = 0; g < in.ragged.total; ++g) {
    const double label = load<double>(in.labels.data, in.labels.dtype, g * in.labels.stride);
    if (!(label >= 0 && label < static_cast<double>(in.classes)))
      fail(op, "gt_labels in 0.." + std::to_string(in.classes - 1), to_string(label) + " at " + std::to_string(g));
  }
}

template <class T>
Array detr_cost_as(Framework& framework, const char* op, const DetrCostInput& in, const Array& like) {
  const DType dtype = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;
  Array out = framework.empty({in.ragged.total, in.queries}, dtype, like.device);
  BOXOPS_DISPATCH(op, like.device, cpu::detr_cost<T>(in, out.as<T>(), framework.parallel()), ([&] {
                    const auto bytes = static_cast<int64_t>(cuda::detr_cost_workspace(in, sizeof(T) == 8));
                    const Array workspace = framework.empty({bytes}, DType::kUInt8, like.device);
                    return cuda::detr_cost<T>(in, out.as<T>(), workspace.data, framework.stream(like.device));
                  }()));
  return out;
}

}  // namespace

Array detr_cost(Framework& framework, Array logits, Array boxes, Array gt_labels, Array gt_boxes, Array offsets,
                double class_weight, double box_weight, double giou_weight, bool focal) {
  const char* op = "detr_cost";
  check_floating(op, "logits", logits);
  check_shape(op, "logits", logits, {-1, -1, -1}, "[B, Q, C]");
  if (logits.sizes[2] == 0) fail(op, "logits of at least one class", to_string(logits.sizes));
  check_floating(op, "boxes", boxes);
  const Dims box_sizes{logits.sizes[0], logits.sizes[1], 4};
  check_shape(op, "boxes", boxes, box_sizes, to_string(box_sizes).c_str());
  check_floating(op, "gt_boxes", gt_boxes);
  check_shape(op, "gt_boxes", gt_boxes, {-1, 4}, "[G, 4]");
  check_device(op, "boxes", boxes, "logits", logits);
  check_device(op, "gt_boxes", gt_boxes, "logits", logits);
  check_ids(op, "gt_labels", gt_labels, gt_boxes);
  check_finite(op, "class_weight", class_weight);
  check_finite(op, "box_weight", box_weight);
  check_finite(op, "giou_weight", giou_weight);
  const Dims bounds{logits.sizes[0] + 1};
  check_shape(op, "offsets", offsets, bounds, to_string(bounds).c_str());
  if (logits.sizes[0] == 0 && gt_boxes.sizes[0] > 0)  // a kernel would have no image to clamp to
    fail(op, "no ground truths where there are no images", std::to_string(gt_boxes.sizes[0]));
  std::optional<Array> held = offsets;
  const Ragged ragged = check_offsets(framework, op, "offsets", held, "ground truths", gt_boxes);
  const DetrCostInput in{logits.data,
                         logits.dtype,
                         logits.strides[0],
                         logits.strides[1],
                         logits.strides[2],
                         logits.sizes[0],
                         logits.sizes[1],
                         logits.sizes[2],
                         {boxes.data, boxes.dtype, Format::kCXCYWH, boxes.sizes[0], boxes.sizes[1], boxes.strides[0],
                          boxes.strides[1], boxes.strides[2]},
                         view_scalars(gt_labels),
                         {gt_boxes.data, gt_boxes.dtype, Format::kCXCYWH, 1, gt_boxes.sizes[0], 0, gt_boxes.strides[0],
                          gt_boxes.strides[1]},
                         ragged,
                         class_weight,
                         box_weight,
                         giou_weight,
                         focal};
  if (logits.device.type == DeviceType::kCPU) check_range(op, in);
  return with_compute_type(compute_type(logits.dtype, boxes.dtype, gt_boxes.dtype),
                           [&](auto t) { return detr_cost_as<decltype(t)>(framework, op, in, logits); });
}

}  // namespace boxops::ops
