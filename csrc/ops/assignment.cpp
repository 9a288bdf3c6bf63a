#include "assign/assignment.h"

#include <cmath>

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

}  // namespace boxops::ops
