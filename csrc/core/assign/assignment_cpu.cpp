#include <boxops/assignment.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "common/blocks.h"
#include "common/dtype.h"
#include "common/isa.h"

namespace boxops {
namespace {

constexpr int kLanes = 8;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// One problem with rows <= columns, in memory aligned for vectors. Rows of `cost` are `width` wide, padded with +inf.
struct AssignmentProblem {
  int64_t rows, width;
  double *cost, *u, *v, *open, *distance, *reached;
  int64_t *via, *row_of, *column_of, *scanned;
  int64_t* rank;  // a free column's own number; that of a taken one is kTaken higher
};

constexpr int64_t kTaken = int64_t(1) << 62, kNoRank = std::numeric_limits<int64_t>::max();
constexpr double kHuge = 0x1p1000, kScale = 0x1p-64;

struct Found {
  bool wrong = false;  // a NaN or -inf
  bool huge = false;
};

template <class S>
struct Typed {
  const S* data;
  double operator()(int64_t i) const { return static_cast<double>(data[i]); }
};
struct Untyped {
  const void* data;
  DType dtype;
  double operator()(int64_t i) const { return load<double>(data, dtype, i); }
};

}  // namespace
}  // namespace boxops

#define BOXOPS_SIMD_SOURCE "assign/assignment_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

AssignmentFault first_wrong(const AssignmentInput& in, int64_t b) {
  for (int64_t i = 0; i < in.rows_of(b); ++i)
    for (int64_t j = 0; j < in.columns; ++j) {
      const double value = load<double>(in.data, in.dtype, in.offset_of(b) + i * in.row_stride + j * in.column_stride);
      if (!((in.maximize ? -value : value) > -kInfinity)) return {b, i, j, value};
    }
  return {};
}

void copy_costs(const AssignmentInput& in, int64_t b, const AssignmentProblem& p, int64_t columns, bool transposed) {
  const int64_t row_stride = transposed ? in.column_stride : in.row_stride,
                column_stride = transposed ? in.row_stride : in.column_stride, start = in.offset_of(b);
  const auto copy = [&](auto from) {
    BOXOPS_BY_ISA(copy_costs<decltype(from)>)(from, start, row_stride, column_stride, in.maximize ? -1.0 : 1.0, p.rows,
                                              columns, p.cost, p.width);
  };
  if (in.dtype == DType::kFloat32) copy(Typed<float>{static_cast<const float*>(in.data)});
  else if (in.dtype == DType::kFloat64) copy(Typed<double>{static_cast<const double*>(in.data)});
  else copy(Untyped{in.data, in.dtype});
}

// The arrays of a problem, and memory for them that grows to the largest problem of a thread.
class Memory {
 public:
  AssignmentProblem problem(int64_t rows, int64_t columns) {
    // An odd number of cache lines: rows of a power of two would fall on the same few sets of the cache.
    int64_t width = blocks_of(columns, kLanes);
    width = (width + (width % 2 == 0)) * kLanes;
    const int64_t padded = blocks_of(rows, kLanes) * kLanes;
    const int64_t total = rows * width + 6 * width + 4 * padded + kLanes;
    if (total > size_) memory_.reset(new double[total]), size_ = total;
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    double* next = memory_.get() + (64 - address % 64) % 64 / sizeof(double);
    const auto take = [&](int64_t n) { return std::exchange(next, next + n); };
    const auto take_indices = [&](int64_t n) { return reinterpret_cast<int64_t*>(take(n)); };
    AssignmentProblem p;
    p.rows = rows, p.width = width;
    p.cost = take(rows * width), p.u = take(padded), p.reached = take(padded);
    p.v = take(width), p.open = take(width), p.distance = take(width);
    p.via = take_indices(width), p.row_of = take_indices(width), p.rank = take_indices(width);
    p.column_of = take_indices(padded), p.scanned = take_indices(padded);
    for (int64_t i = 0; i < rows; ++i) std::fill(p.cost + i * width + columns, p.cost + (i + 1) * width, kInfinity);
    std::fill_n(p.v, width, 0.0);
    std::fill_n(p.row_of, width, int64_t(-1));
    std::iota(p.rank, p.rank + width, int64_t(0));
    std::fill_n(p.column_of, rows, int64_t(-1));
    return p;
  }

 private:
  std::unique_ptr<double[]> memory_;
  int64_t size_ = 0;
};

// Solves problem b and writes its part of the output; of a faulty one, that nothing is assigned.
AssignmentFault solve(const AssignmentInput& in, int64_t b, Memory& memory, int64_t* row_ind, int64_t* col_ind) {
  const int64_t n = in.rows_of(b), m = in.columns, k = std::min(n, m);
  const bool transposed = n > m;
  const AssignmentProblem p = memory.problem(k, std::max(n, m));
  copy_costs(in, b, p, std::max(n, m), transposed);
  const Found found = BOXOPS_BY_ISA(look_at)(p.cost, k * p.width);
  if (found.huge)
    for (int64_t i = 0; i < k * p.width; ++i) p.cost[i] *= kScale;
  AssignmentFault fault;
  if (found.wrong) fault = first_wrong(in, b);
  else if (!BOXOPS_BY_ISA(augment)(p)) fault = {b};
  const bool solved = fault.problem < 0;
  const int64_t first = in.is_ragged ? in.first_row(b) : b * k;
  if (!solved || !transposed) {
    for (int64_t i = 0; i < (in.is_ragged ? n : k); ++i) {
      row_ind[first + i] = in.is_ragged ? first + i : i;
      col_ind[first + i] = solved ? p.column_of[i] : -1;
    }
  } else {
    for (int64_t i = 0, at = first; i < n; ++i) {
      if (!in.is_ragged && p.row_of[i] < 0) continue;
      row_ind[at] = in.is_ragged ? first + i : i;
      col_ind[at++] = p.row_of[i];
    }
  }
  return fault;
}

}  // namespace

AssignmentFault linear_sum_assignment(const AssignmentInput& in, int64_t* row_ind, int64_t* col_ind,
                                      const Parallel& parallel) {
  constexpr double kCostNs = 1;  // of the matrix on one core, more in large problems
  const int64_t rows = in.is_ragged ? in.rows / std::max<int64_t>(1, in.batch) : in.rows;
  std::vector<AssignmentFault> faults(in.batch);
  parallel.share(in.batch, kCostNs * rows * in.columns, [&](int64_t begin, int64_t end) {
    Memory memory;
    for (int64_t b = begin; b < end; ++b) faults[b] = solve(in, b, memory, row_ind, col_ind);
  });
  for (const AssignmentFault& fault : faults)
    if (fault.problem >= 0) return fault;
  return {};
}

}  // namespace boxops::cpu
