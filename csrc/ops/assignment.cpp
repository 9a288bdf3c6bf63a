#include "assign/assignment.h"

#include <cmath>

#include "assign/detr_cost.h"
#include "ops/check.h"
#include "ops/ops.h"

namespace boxops::ops {
namespace {

// Throws what the CPU found; CUDA cannot say it without waiting.
void check_fault(const char* op, const AssignmentInput& in, const AssignmentFault& fault, int rank) {
  if (fault.problem < 0) return;
  if (fault.row < 0)
    fail(op, "a cost matrix with a finite assignment",
         rank == 2 && !in.is_ragged ? "none" : "none (problem " + std::to_string(fault.problem) + ")");
  Dims place;
  if (rank == 3) place.push_back(fault.problem);
  place.push_back(in.is_ragged ? in.first_row(fault.problem) + fault.row : fault.row);
  place.push_back(fault.column);
  fail(op, in.maximize ? "costs without NaN or inf" : "costs without NaN or -inf",
       (std::isnan(fault.value) ? "nan" : to_string(fault.value)) + (" at " + to_string(place)));
}

}  // namespace

std::tuple<Array, Array> linear_sum_assignment(Framework& framework, Array cost, bool maximize,
                                               std::optional<Array> offsets) {
  const char* op = "linear_sum_assignment";
  check_numeric(op, "cost", cost);
  if (offsets) check_shape(op, "cost", cost, {-1, -1}, "[R, m]");
  else if (cost.rank() != 2 && cost.rank() != 3) fail(op, "cost of shape [n, m] or [B, n, m]", to_string(cost.sizes));
  const bool batched = cost.rank() == 3;
  AssignmentInput in{cost.data,
                     cost.dtype,
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
  BOXOPS_DISPATCH(
      op, cost.device,
      check_fault(op, in, cpu::linear_sum_assignment(in, rows, columns, framework.parallel()), cost.rank()), ([&] {
        const auto bytes = static_cast<int64_t>(cuda::linear_sum_assignment_workspace(in));
        const Array workspace = framework.empty({bytes}, DType::kUInt8, cost.device);
        return cuda::linear_sum_assignment(in, rows, columns, workspace.data, framework.stream(cost.device));
      }()));
  return {row_ind, col_ind};
}

namespace {

void check_labels(const char* op, const DetrCostInput& in) {
  for (int64_t g = 0; g < in.ragged.total; ++g) {
    const int64_t label = load<int64_t>(in.labels.data, in.labels.dtype, g * in.labels.stride);
    if (label < 0 || label >= in.classes)
      fail(op, "gt_labels in 0.." + std::to_string(in.classes - 1), std::to_string(label) + " at " + std::to_string(g));
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
  check_numeric(op, "gt_labels", gt_labels);
  if (!is_integer(gt_labels.dtype)) fail(op, "gt_labels of an integer type", name_of(gt_labels.dtype));
  const Dims rows{gt_boxes.sizes[0]};
  check_shape(op, "gt_labels", gt_labels, rows, to_string(rows).c_str());
  check_device(op, "boxes", boxes, "logits", logits);
  check_device(op, "gt_labels", gt_labels, "logits", logits);
  check_device(op, "gt_boxes", gt_boxes, "logits", logits);
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
  if (logits.device.type == DeviceType::kCPU) check_labels(op, in);
  const bool float64 =
      logits.dtype == DType::kFloat64 || boxes.dtype == DType::kFloat64 || gt_boxes.dtype == DType::kFloat64;
  return float64 ? detr_cost_as<double>(framework, op, in, logits) : detr_cost_as<float>(framework, op, in, logits);
}

}  // namespace boxops::ops
