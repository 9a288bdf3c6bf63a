#include <boxops/assignment.h>

#include <algorithm>
#include <cmath>

#include <boxops/assignment.h>
#include <boxops/ops.h>
#include "common/dtype.h"
#include "ops/check.h"

namespace boxops::ops {
namespace {

// Throws what the CPU found; CUDA cannot say it without waiting.
void check_fault(const Call& call, const AssignmentInput& in, const AssignmentFault& fault, int rank) {
  if (fault.problem < 0) return;
  const std::string problem = rank == 2 && !in.is_ragged ? "" : " (problem " + std::to_string(fault.problem) + ")";
  if (fault.row < 0) call.fail("a cost matrix with a finite assignment", "none" + problem);
  Dims place;
  if (rank == 3) place.push_back(fault.problem);
  place.push_back(in.is_ragged ? in.first_row(fault.problem) + fault.row : fault.row);
  place.push_back(fault.column);
  call.fail(in.maximize ? "costs without NaN or inf" : "costs without NaN or -inf",
            (std::isnan(fault.value) ? "nan" : to_string(fault.value)) + (" at " + to_string(place)) + problem);
}

}  // namespace

std::tuple<Array, Array> linear_sum_assignment(Framework& framework, Array cost, bool maximize,
                                               std::optional<Array> offsets, OnInvalid on_invalid) {
  const Call call("linear_sum_assignment", framework, cost.device);
  check_number_or_bool(call, "cost", cost);
  if (offsets) check_shape(call, "cost", cost, {-1, -1}, "[R, m]");
  else if (cost.rank() != 2 && cost.rank() != 3) call.fail("cost of shape [n, m] or [B, n, m]", to_string(cost.sizes));
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
  if (offsets) in.ragged = check_offsets(call, "offsets", offsets, "rows", cost), in.batch = in.ragged.batch;
  Dims sizes;
  if (batched) sizes.push_back(in.batch);
  sizes.push_back(in.is_ragged ? in.rows : std::min(in.rows, in.columns));
  Array row_ind = call.empty(sizes, DType::kInt64);
  Array col_ind = call.empty(sizes, DType::kInt64);
  int64_t *rows = row_ind.as<int64_t>(), *columns = col_ind.as<int64_t>();
  AssignmentFault fault;
  call.run([&](const Parallel& parallel) { fault = cpu::linear_sum_assignment(in, rows, columns, parallel); },
           [&](auto stream) {
             if (std::max(in.rows, in.columns) > cuda::kMaxAssigned)
               call.fail("at most 2^30 rows and columns on CUDA", to_string(cost.sizes));
             return cuda::linear_sum_assignment(in, rows, columns,
                                                call.workspace(cuda::linear_sum_assignment_workspace(in)).data, stream);
           });
  if (on_invalid == OnInvalid::kRaise) check_fault(call, in, fault, cost.rank());
  return {row_ind, col_ind};
}
BOXOPS_OP(linear_sum_assignment, "cost", "maximize", "offsets", "on_invalid");

namespace {

void check_range(const Call& call, const DetrCostInput& in) {
  for (int64_t g = 0; g < in.ragged.total; ++g) {
    const double label = load<double>(in.labels.data, in.labels.dtype, g * in.labels.stride);
    if (!(label >= 0 && label < static_cast<double>(in.classes)))
      call.fail("gt_labels in 0.." + std::to_string(in.classes - 1), to_string(label) + " at " + std::to_string(g));
  }
}

}  // namespace

Array detr_cost(Framework& framework, Array logits, Array boxes, Array gt_labels, Array gt_boxes, Array offsets,
                double class_weight, double box_weight, double giou_weight, bool focal) {
  const Call call("detr_cost", framework, logits.device);
  check_floating(call, "logits", logits);
  check_shape(call, "logits", logits, {-1, -1, -1}, "[B, Q, C]");
  if (logits.sizes[2] == 0) call.fail("logits of at least one class", to_string(logits.sizes));
  check_floating(call, "boxes", boxes);
  check_shape(call, "boxes", boxes, {logits.sizes[0], logits.sizes[1], 4});
  check_floating(call, "gt_boxes", gt_boxes);
  check_shape(call, "gt_boxes", gt_boxes, {-1, 4}, "[G, 4]");
  check_device(call, "boxes", boxes, "logits");
  check_device(call, "gt_boxes", gt_boxes, "logits");
  check_ids(call, "gt_labels", gt_labels, gt_boxes);
  check_finite(call, "class_weight", class_weight);
  check_finite(call, "box_weight", box_weight);
  check_finite(call, "giou_weight", giou_weight);
  check_shape(call, "offsets", offsets, {logits.sizes[0] + 1});
  if (logits.sizes[0] == 0 && gt_boxes.sizes[0] > 0)  // a kernel would have no image to clamp to
    call.fail("no ground truths where there are no images", std::to_string(gt_boxes.sizes[0]));
  std::optional<Array> held = offsets;
  const Ragged ragged = check_offsets(call, "offsets", held, "ground truths", gt_boxes);
  const DetrCostInput in{logits.data,
                         logits.dtype,
                         logits.strides[0],
                         logits.strides[1],
                         logits.strides[2],
                         logits.sizes[0],
                         logits.sizes[1],
                         logits.sizes[2],
                         boxes_of(boxes, Format::kCXCYWH),
                         scalars_of(gt_labels),
                         boxes_of(gt_boxes, Format::kCXCYWH),
                         ragged,
                         class_weight,
                         box_weight,
                         giou_weight,
                         focal};
  if (call.on_cpu()) check_range(call, in);
  Array out = call.empty({in.ragged.total, in.queries}, compute_type(logits.dtype, boxes.dtype, gt_boxes.dtype));
  call.run([&](const Parallel& parallel) { cpu::detr_cost(in, out.data, parallel); },
           [&](auto stream) {
             return cuda::detr_cost(in, out.data, call.workspace(cuda::detr_cost_workspace(in)).data, stream);
           });
  return out;
}
BOXOPS_OP(detr_cost, "logits", "boxes", "gt_labels", "gt_boxes", "offsets", "class_weight", "box_weight", "giou_weight",
          "focal");

}  // namespace boxops::ops
