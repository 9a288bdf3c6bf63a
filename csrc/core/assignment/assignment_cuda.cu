// Assignment on the device: a block for each problem, a thread for its columns t, t + T, ...
//
//   cost        | . . . . | . . . . |   rows of columns side by side: the input itself, or a copy
//   v           | . . . . |             of the columns: their duals,
//   distance    | . . . . |             how far a search has them,
//   via         | 0 ~1  0 0 |           the row that it came by; ~row once the column was scanned,
//   row_of      | 1  0 -1 -1 |          and the row that has them
//   column_of   | 1 0 |                 of the rows
//   nearest     | . . |                 their two nearest columns while all duals are 0, if rows are fewer
//
// All but the costs lies in shared memory where it fits, else in the workspace. A step is one pass over a row, a
// minimum over the block and a barrier or two: what it takes is latency, so many problems at once are what pays.
#include "assignment/assignment.h"

#include "common/cuda_utils.cuh"
#include "common/dtype.h"
#include "common/dynamic_shared.cuh"
#include "common/geometry.h"
#include "common/warp.cuh"

namespace boxops::cuda {
namespace {

constexpr int kMaxThreads = 1024, kAtOnce = 2;  // kAtOnce: columns whose costs a thread has on their way

// Distances as bits that order as they do, so that minima are integer instructions; -0 is 0.
constexpr uint64_t kSign = uint64_t(1) << 63, kFar = 0x7ff0000000000000 | kSign;  // kFar: infinity
__device__ uint64_t key_of(double distance) {
  const long long bits = __double_as_longlong(distance + 0.0);
  return static_cast<uint64_t>(bits) ^ (static_cast<uint64_t>(bits >> 63) | kSign);
}
__device__ double distance_of(uint64_t key) {
  const long long negative = static_cast<long long>(~key) >> 63;
  return __longlong_as_double(static_cast<long long>(key ^ (static_cast<uint64_t>(negative) | kSign)));
}

// The rank of a free column is its index; that of a taken one is higher by this.
constexpr unsigned kTakenBit = 1u << 31;

// The nearest of the columns, ties to the lower rank, and the second nearest.
struct Nearest {
  uint64_t key, second_key;
  unsigned rank, second;

  __device__ void take(uint64_t other, unsigned other_rank) {
    if (other < key || (other == key && other_rank < rank)) {
      second_key = key, second = rank, key = other, rank = other_rank;
    } else if (other < second_key) {
      second_key = other, second = other_rank;
    }
  }
};

constexpr Nearest kNone{kFar, kFar, ~0u, ~0u};

// Of all lanes, to all: the nearest, and how far the second nearest is where `kTwo`.
template <bool kTwo>
__device__ Nearest nearest_of_warp(const Nearest& own) {
  Nearest all = kNone;
  all.key = warp_min(own.key);
  all.rank = warp_min(own.key == all.key ? own.rank : ~0u);
  if (kTwo) all.second_key = warp_min(own.rank == all.rank ? own.second_key : own.key);
  return all;
}

// Where augmenting row reduction stands. Thread 0 writes it.
struct Turn {
  int next;         // row
  int row;          // whose turn it is; -1: nobody's
  int lost, moves;  // the column that it had; how often columns were tied
  int64_t steps;    // left
  enum { kGoesOn, kIsTied, kHasNone } state;
  uint64_t tied;  // the distance
};

struct Shared {
  Nearest of_warp[2][kMaxThreads / 32];  // used in turn
  Turn turn;
};
constexpr int64_t kSharedWords = (48 * 1024 - sizeof(Shared)) / 8;  // what is left

// Of all threads, to all, which meet once.
template <bool kTwo>
__device__ Nearest nearest_of_block(const Nearest& own, Shared& shared, int& buffer) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warps = static_cast<int>(blockDim.x) / 32;
  const Nearest first = nearest_of_warp<kTwo>(own);
  if (lane == 0) shared.of_warp[buffer][threadIdx.x / 32] = first;
  __syncthreads();
  Nearest other = kNone;
  if (lane < warps) other = shared.of_warp[buffer][lane];
  buffer ^= 1;
  return nearest_of_warp<kTwo>(other);
}

// The two nearest columns of a row.
struct Known {
  double distance, second_distance;
  int column, second;
};

// One problem with rows <= columns.
template <class S>
struct Problem {
  const S* cost;
  int64_t row_stride;
  int rows, columns;
  double scale;  // of the costs: -1 where they are maximized
  double *v, *distance;
  Known* nearest;
  int *via, *row_of, *column_of;

  __device__ double cost_at(int row, int column) const {
    return scale * static_cast<double>(cost[row * row_stride + column]);
  }
  __device__ unsigned rank(int column) const {
    return static_cast<unsigned>(column) | (row_of[column] < 0 ? 0u : kTakenBit);
  }
};

// Words of 8 bytes that a problem has for all but its costs.
__host__ __device__ int64_t words_of(int64_t rows, int64_t columns) {
  const int64_t k = rows < columns ? rows : columns, l = rows < columns ? columns : rows;
  return 3 * l + (k < l ? 4 : 1) * k;
}

// Those of problem b begin here in the workspace, and its costs, if they are copied, at this element.
__host__ __device__ int64_t word_of(const AssignmentInput& in, int64_t b) {
  if (!in.is_ragged) return b * words_of(in.rows, in.columns);
  return 4 * ((b == in.batch ? in.rows : in.first_row(b)) + b * in.columns);
}
__host__ __device__ int64_t copy_of(const AssignmentInput& in, int64_t b) {
  return (in.is_ragged && b == in.batch ? in.rows : in.first_row(b)) * in.columns;
}

// Whether costs of `n` rows lie otherwise than as rows, no shorter than there are rows, of numbers S side by side.
template <class S>
__host__ __device__ bool is_copied(const AssignmentInput& in, int64_t n) {
  return in.dtype != dtype_of<S>() || (n > in.columns ? in.row_stride : in.column_stride) != 1;
}

template <class S>
__device__ Problem<S> problem_of(const AssignmentInput& in, int64_t b, double* memory) {
  const int64_t n = in.rows_of(b), m = in.columns;
  Problem<S> p;
  p.rows = static_cast<int>(n < m ? n : m), p.columns = static_cast<int>(n < m ? m : n);
  p.cost = static_cast<const S*>(in.data) + in.offset_of(b), p.row_stride = n > m ? in.column_stride : in.row_stride;
  p.scale = in.maximize ? -1.0 : 1.0;
  p.v = memory, p.distance = p.v + p.columns;
  p.nearest = reinterpret_cast<Known*>(p.distance + p.columns);
  p.via = reinterpret_cast<int*>(p.nearest + (n == m ? 0 : p.rows));
  p.row_of = p.via + p.columns, p.column_of = p.row_of + p.columns;
  if (n == m) p.nearest = nullptr;
  return p;
}

// The functions below are of all threads of the block. They do what assignment_simd.inl does, to the bit.

// Copies the costs, a warp a row.
template <class S>
__device__ void copy_costs(const AssignmentInput& in, int64_t b, Problem<S>& p, S* copy) {
  const bool transposed = in.rows_of(b) > in.columns;
  const int64_t row_stride = transposed ? in.column_stride : in.row_stride,
                column_stride = transposed ? in.row_stride : in.column_stride;
  for (int i = static_cast<int>(threadIdx.x) / 32; i < p.rows; i += static_cast<int>(blockDim.x) / 32)
    for (int j = static_cast<int>(threadIdx.x) % 32; j < p.columns; j += 32)
      copy[int64_t(i) * p.columns + j] =
          load<S>(in.data, in.dtype, in.offset_of(b) + i * row_stride + j * column_stride);
  p.cost = copy, p.row_stride = p.columns;
  __syncthreads();
}

// Looks at all costs, a warp at a row, and at the row's nearest columns. False: a cost is NaN or infinite the wrong
// way.
template <class S>
__device__ bool look_at(Problem<S>& p) {
  bool wrong = false, huge = false;
  for (int i = static_cast<int>(threadIdx.x) / 32; i < p.rows; i += static_cast<int>(blockDim.x) / 32) {
    Nearest own = kNone;
    for (int j = static_cast<int>(threadIdx.x) % 32; j < p.columns; j += 32) {
      const double cost = p.cost_at(i, j);
      wrong |= !(cost > -kInfinity);
      huge |= cost < -kHuge || (cost > kHuge && cost < kInfinity);
      own.take(key_of(cost), static_cast<unsigned>(j));
    }
    if (p.nearest == nullptr) continue;
    const Nearest all = nearest_of_warp<true>(own);
    if (own.rank != all.rank) own.second_key = own.key, own.second = own.rank;
    const unsigned second = warp_min(own.second_key == all.second_key ? own.second : ~0u);
    if (threadIdx.x % 32 == 0)
      p.nearest[i] = {distance_of(all.key), distance_of(all.second_key), static_cast<int>(all.rank),
                      static_cast<int>(second)};
  }
  if (__syncthreads_or(huge)) p.scale *= kScale, p.nearest = nullptr;
  return __syncthreads_or(wrong) == 0;
}

// Column duals begin at the least costs where all columns are taken in the end, else at 0. False: there is no finite
// assignment.
template <class S>
__device__ bool reduce_columns(const Problem<S>& p) {
  const int t = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  bool impossible = false;
  for (int j = t; j < p.columns; j += threads) {
    double least = p.rows == p.columns ? kInfinity : 0.0;
    for (int i = 0; i < p.rows && p.rows == p.columns; ++i) {
      const double cost = p.cost_at(i, j);
      least = cost < least ? cost : least;
    }
    impossible |= !(least < kInfinity);
    p.v[j] = least, p.row_of[j] = -1;
  }
  for (int i = t; i < p.rows; i += threads) p.column_of[i] = -1;
  return __syncthreads_or(impossible) == 0;
}

// visit(j, cost) for a thread's columns j of a row.
template <class S, class Visit>
__device__ void each_column(const Problem<S>& p, int row, Visit visit) {
  const int threads = static_cast<int>(blockDim.x);
  const S* const costs = p.cost + row * p.row_stride;
  for (int first = static_cast<int>(threadIdx.x); first < p.columns; first += kAtOnce * threads) {
    S cost[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) cost[k] = costs[min_of(first + k * threads, p.columns - 1)];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k)
      if (first + k * threads < p.columns) visit(first + k * threads, p.scale * static_cast<double>(cost[k]));
  }
}

// Thread 0 gives the row a column; the turn is whose it was.
template <class S>
__device__ void assign(const Problem<S>& p, Turn& turn, int column) {
  const int before = p.row_of[column];
  p.row_of[column] = turn.row, p.column_of[turn.row] = column;
  if (before >= 0) p.column_of[before] = -1;
  turn.row = before, turn.lost = column;
}

// Thread 0 goes on to the next row whose two nearest columns must be looked for, and counts the step. They are known
// from the beginning where the second is as near as it was then: duals only fall.
template <class S>
__device__ void go_on(const Problem<S>& p, Turn& turn) {
  for (;;) {
    if (turn.row < 0 && turn.next < p.rows) turn.row = turn.next++, turn.lost = -1, turn.moves = 0;
    if (turn.row < 0 || turn.steps-- == 0) {
      turn.row = -1;
      return;
    }
    if (p.nearest == nullptr) return;
    const Known& known = p.nearest[turn.row];
    if (!(known.second_distance < kInfinity) || p.v[known.second] != 0.0) return;
    const double dual = p.v[known.column], lowered = dual - (known.second_distance - (known.distance - dual));
    if (!(lowered < dual)) return;
    p.v[known.column] = lowered, turn.moves = 0;
    assign(p, turn, known.column);
  }
}

// Thread 0 decides where the nearest columns of the row are found.
template <class S>
__device__ void decide(const Problem<S>& p, Turn& turn, const Nearest& found) {
  const int column = static_cast<int>(found.rank & ~kTakenBit);
  turn.state = found.key == kFar ? Turn::kHasNone : Turn::kGoesOn;
  if (turn.state == Turn::kHasNone) return;
  const double dual = p.v[column], second = distance_of(found.second_key),
               lowered = dual - (second - distance_of(found.key));
  if (second < kInfinity && lowered < dual) {
    p.v[column] = lowered, turn.moves = 0;
    assign(p, turn, column);
  } else if (found.rank < kTakenBit) {
    assign(p, turn, column);
  } else if (turn.moves++ == kTiedMoves) {
    turn.row = -1;
  } else {
    turn.state = Turn::kIsTied, turn.tied = found.key;
    return;
  }
  go_on(p, turn);
}

// Augmenting row reduction. False if a row has no finite cost.
template <class S>
__device__ bool reduce_rows(const Problem<S>& p, Shared& shared, int& buffer) {
  Turn& turn = shared.turn;
  const bool leads = threadIdx.x == 0;
  if (leads) turn.next = 0, turn.row = -1, turn.steps = 2 * int64_t(p.rows), go_on(p, turn);
  __syncthreads();
  while (turn.row >= 0) {
    Nearest own = kNone;
    each_column(p, turn.row, [&](int j, double cost) {
      p.distance[j] = cost - p.v[j];
      own.take(key_of(p.distance[j]), p.rank(j));
    });
    const Nearest found = nearest_of_block<true>(own, shared, buffer);
    if (leads) decide(p, turn, found);
    __syncthreads();
    if (turn.state == Turn::kHasNone) return false;
    if (turn.state != Turn::kIsTied) continue;
    own = kNone;  // the first after `lost`
    for (int j = static_cast<int>(threadIdx.x); j < p.columns; j += static_cast<int>(blockDim.x))
      if (key_of(p.distance[j]) == turn.tied) own.take(0, static_cast<unsigned>(j) | (j > turn.lost ? 0u : kTakenBit));
    const Nearest first = nearest_of_block<false>(own, shared, buffer);
    if (leads) assign(p, turn, static_cast<int>(first.rank & ~kTakenBit)), go_on(p, turn);
    __syncthreads();
  }
  return true;
}

// Shortest augmenting paths from the rows that are left. False if there is no finite assignment.
template <class S>
__device__ bool augment(const Problem<S>& p, Shared& shared, int& buffer) {
  const int t = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  for (int added = 0; added < p.rows; ++added) {
    if (p.column_of[added] >= 0) continue;
    int row = added, scanned = -1, column;
    double base = 0.0, least;
    for (bool first = true;; first = false) {
      Nearest own = kNone;
      each_column(p, row, [&](int j, double cost) {
        if (j == scanned) p.via[j] = ~p.via[j];
        if (!first && p.via[j] < 0) return;
        const double through = (cost - p.v[j]) + base;
        double distance = first ? kInfinity : p.distance[j];
        if (first || through < distance) p.distance[j] = distance = through, p.via[j] = row;
        own.take(key_of(distance), p.rank(j));
      });
      const Nearest found = nearest_of_block<false>(own, shared, buffer);
      if (found.key == kFar) return false;
      least = distance_of(found.key), column = static_cast<int>(found.rank & ~kTakenBit);
      if (found.rank < kTakenBit) break;
      scanned = column, row = p.row_of[column];
      base = least - (p.cost_at(row, column) - p.v[column]);
    }
    for (int j = t; j < p.columns; j += threads)
      if (p.via[j] < 0) p.v[j] -= least - p.distance[j];
    __syncthreads();
    if (t == 0) {
      while (column >= 0) {
        const int by = p.via[column] < 0 ? ~p.via[column] : p.via[column], next = p.column_of[by];
        p.row_of[column] = by, p.column_of[by] = column;
        column = next;
      }
    }
    __syncthreads();
  }
  return true;
}

// What a ragged batch has where nothing is assigned.
__global__ void fill_kernel(int64_t n, int64_t* row_ind, int64_t* col_ind) {
  for (const int64_t i : grid_stride(n)) row_ind[i] = i, col_ind[i] = -1;
}

// Whether offsets never fall.
__device__ bool offsets_rise(const AssignmentInput& in) {
  bool fall = false;
  for (int64_t i = threadIdx.x; in.is_ragged && i < in.batch; i += blockDim.x)
    fall |= in.ragged.offsets[i + 1] < in.ragged.offsets[i];
  return __syncthreads_or(fall) == 0;
}

// A block solves one problem after another. Its costs are copied to `copies`, if they must be.
template <class S>
__global__ void __launch_bounds__(kMaxThreads) solve_kernel(AssignmentInput in, int64_t shared_words, double* workspace,
                                                            S* copies, int64_t* row_ind, int64_t* col_ind) {
  __shared__ Shared shared;
  const bool rise = offsets_rise(in);
  for (int64_t b = blockIdx.x; b < in.batch; b += gridDim.x) {
    const int64_t n = in.rows_of(b), m = in.columns;
    const bool fits = words_of(n, m) <= shared_words;
    Problem<S> p = problem_of<S>(in, b, fits ? dynamic_shared<double>() : workspace + word_of(in, b));
    if (rise && is_copied<S>(in, n)) copy_costs(in, b, p, copies + copy_of(in, b));
    int buffer = 0;
    const bool solved =
        rise && look_at(p) && reduce_columns(p) && reduce_rows(p, shared, buffer) && augment(p, shared, buffer);
    if (in.is_ragged) {
      const int64_t first = in.first_row(b);
      const int* columns = n > m ? p.row_of : p.column_of;
      for (int64_t i = threadIdx.x; i < n && solved; i += blockDim.x) col_ind[first + i] = columns[i];
    } else {
      for (int64_t i = threadIdx.x; i < p.rows; i += blockDim.x) {
        int64_t at = i, row = i;
        if (n > m && solved) {  // rows rise: the place of a row is the number of assigned rows before it
          row = p.column_of[i], at = 0;
          for (int64_t other = 0; other < p.rows; ++other) at += p.column_of[other] < row;
        }
        row_ind[b * p.rows + at] = row;
        col_ind[b * p.rows + at] = !solved ? -1 : n > m ? i : p.column_of[i];
      }
    }
    __syncthreads();  // before the next problem takes the memory
  }
}

// Words that the largest problem can need; of a ragged batch the host knows no more than the sum.
int64_t max_words(const AssignmentInput& in) {
  return in.is_ragged ? 4 * (in.rows + in.columns) : words_of(in.rows, in.columns);
}

template <class S>
struct AssignmentSpace {
  double* words;
  S* copies;

  AssignmentSpace(Workspace& w, const AssignmentInput& in)
      : words(w.take<double>(max_words(in) <= kSharedWords ? 0 : word_of(in, in.batch))),
        copies(w.take<S>(in.is_ragged || is_copied<S>(in, in.rows) ? copy_of(in, in.batch) : 0)) {}
};

}  // namespace

size_t linear_sum_assignment_workspace(const AssignmentInput& in) {
  Workspace w(nullptr);
  with_compute_type(in.dtype, [&](auto s) { AssignmentSpace<decltype(s)>(w, in); });
  return w.used();
}

int linear_sum_assignment(const AssignmentInput& in, int64_t* row_ind, int64_t* col_ind, void* workspace,
                          void* stream) {
  if (in.is_ragged)
    BOXOPS_TRY(launch(fill_kernel, grid_x(blocks_of(in.rows, 256)), 256, stream, in.rows, row_ind, col_ind));
  if (in.batch == 0 || in.rows == 0 || in.columns == 0) return cudaSuccess;
  const int64_t words = max_words(in), shared = words < kSharedWords ? words : kSharedWords;
  const int64_t rows = in.is_ragged ? blocks_of(in.rows, in.batch) : in.rows;
  const int64_t columns = rows > in.columns ? rows : in.columns;
  const auto threads = static_cast<unsigned>(min_of<int64_t>(blocks_of(columns, 32) * 32, kMaxThreads));
  return with_compute_type(in.dtype, [&](auto s) {
    using S = decltype(s);
    Workspace w(workspace);
    const AssignmentSpace<S> space(w, in);
    return launch_with(static_cast<size_t>(shared) * 8, solve_kernel<S>, grid_x(in.batch), threads, stream, in, shared,
                       space.words, space.copies, row_ind, col_ind);
  });
}

}  // namespace boxops::cuda
