#include "assignment/assignment.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/blocks.h"
#include "common/dtype.h"
#include "common/isa.h"
#include "common/scratch.h"

namespace boxops {
namespace {

// The rank of a free column is its index; that of a taken one is kTaken higher.
constexpr int64_t kTaken = int64_t(1) << 62, kNoRank = std::numeric_limits<int64_t>::max();
constexpr int64_t kPadding = 16, kAlignment = 64;  // two vectors of doubles of AVX-512

// A row's two nearest columns, and how far they are.
struct Nearest {
  double least, second;
  int64_t column, second_column;
};

// One problem with rows <= columns. Arrays of columns are `width` long, in memory aligned for vectors.
template <class S>
struct AssignmentProblem {
  const S* cost;
  int64_t row_stride, rows, columns, width;
  double scale;          // of the costs: -1 where they are maximized
  double *v, *distance;  // of the columns: their duals, and how far a search has them
  int64_t *via, *row_of, *column_of, *scanned;
  int64_t* rank;  // a free column's own number; that of a taken one is kTaken higher
  double* reached;
  Nearest* nearest;  // of the rows, while all duals are 0
  const S* row(int64_t i) const { return cost + i * row_stride; }
};

struct Found {
  bool wrong = false;  // a NaN or -inf
  bool huge = false;
  bool impossible = false;
};

template <class S>
struct Typed {
  const void* data;
  S operator()(int64_t i) const { return static_cast<const S*>(data)[i]; }
};
template <class S>
struct Untyped {
  const void* data;
  DType dtype;
  S operator()(int64_t i) const { return load<S>(data, dtype, i); }
};

}  // namespace
}  // namespace boxops

#define BOXOPS_SIMD_SOURCE "assignment/assignment_simd.inl"
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

// Memory of a thread, which grows to its largest problem; little is on the stack.
class Memory {
 public:
  double* take(int64_t count) {
    if (count <= kFew) return few_;
    if (count > size_) memory_.reset(new double[count + kAlignment / sizeof(double)]), size_ = count;
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    return memory_.get() + (kAlignment - address % kAlignment) % kAlignment / sizeof(double);
  }

 private:
  static constexpr int64_t kFew = 256;
  alignas(kAlignment) double few_[kFew];
  std::unique_ptr<double[]> memory_;
  int64_t size_ = 0;
};

struct Memories {
  Memory arrays, costs;
};

// Gives a row that is alone, and too short for vectors to pay, the first of its nearest columns.
template <class S>
Found take_nearest(const AssignmentProblem<S>& p) {
  Found found;
  double least = kInfinity;
  for (int64_t j = 0; j < p.columns; ++j) {
    const double cost = p.scale * static_cast<double>(p.cost[j]);
    found.wrong |= !(cost > -kInfinity);
    if (cost < least) least = cost, p.column_of[0] = j;
  }
  found.impossible = least == kInfinity;
  if (!found.impossible) p.row_of[p.column_of[0]] = 0;
  return found;
}

// Solves problem b and writes its part of the output; of a faulty one, that nothing is assigned. Costs are read where
// they are, if they are of type S with rows side by side, else from a copy.
template <class S>
AssignmentFault solve(const AssignmentInput& in, int64_t b, Memories& memory, int64_t* row_ind, int64_t* col_ind) {
  const int64_t n = in.rows_of(b), m = in.columns, k = std::min(n, m), l = std::max(n, m);
  const bool transposed = n > m;
  const int64_t row_stride = transposed ? in.column_stride : in.row_stride,
                column_stride = transposed ? in.row_stride : in.column_stride, start = in.offset_of(b);
  AssignmentProblem<S> p;
  p.rows = k, p.columns = l, p.width = blocks_of(l, kPadding) * kPadding, p.scale = in.maximize ? -1 : 1;
  if (column_stride == 1 && in.dtype == dtype_of<S>()) {
    p.cost = static_cast<const S*>(in.data) + start, p.row_stride = row_stride;
  } else {
    S* copy = reinterpret_cast<S*>(memory.costs.take(blocks_of(k * l * int64_t(sizeof(S)), 8)));
    const auto fill = [&](auto from) {
      BOXOPS_BY_ISA(copy_costs<S, decltype(from)>)(from, start, row_stride, column_stride, k, l, copy);
    };
    in.dtype == dtype_of<S>() ? fill(Typed<S>{in.data}) : fill(Untyped<S>{in.data, in.dtype});
    p.cost = copy, p.row_stride = l;
  }
  double* next = memory.arrays.take(5 * p.width + 7 * k);
  const auto take = [&](int64_t count) { return std::exchange(next, next + count); };
  const auto take_indices = [&](int64_t count) { return reinterpret_cast<int64_t*>(take(count)); };
  p.v = take(p.width), p.distance = take(p.width);
  p.via = take_indices(p.width), p.row_of = take_indices(p.width), p.rank = take_indices(p.width);
  p.column_of = take_indices(k), p.scanned = take_indices(k), p.reached = take(k);
  p.nearest = reinterpret_cast<Nearest*>(take(4 * k));
  std::iota(p.rank, p.rank + p.width, int64_t(0));
  std::fill_n(p.row_of, p.width, int64_t(-1));
  std::fill_n(p.column_of, k, int64_t(-1));
  const Found found = k == 1 && l <= kPadding ? take_nearest(p) : BOXOPS_BY_ISA(solve<S>)(p);
  const AssignmentFault fault = found.wrong ? first_wrong(in, b) : AssignmentFault{found.impossible ? b : -1};
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
  Scratch<AssignmentFault, 2 * sizeof(AssignmentFault)> faults(in.batch);
  parallel.share(in.batch, kCostNs * rows * in.columns, [&](int64_t begin, int64_t end) {
    Memories memory;
    for (int64_t b = begin; b < end; ++b)
      faults[b] = compute_type(in.dtype) == DType::kFloat32 ? solve<float>(in, b, memory, row_ind, col_ind)
                                                            : solve<double>(in, b, memory, row_ind, col_ind);
  });
  for (int64_t b = 0; b < in.batch; ++b)
    if (faults[b].problem >= 0) return faults[b];
  return {};
}

}  // namespace boxops::cpu
