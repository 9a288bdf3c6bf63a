// Assignment on the device: one block per problem, each thread the columns t, t + T, ...
//
// Everything but the costs lies in shared memory where it fits, else in the workspace. A step is one pass over the
// columns and one barrier or two; its length is that of the memory's latency, so many problems at once are what pays.
#include "assignment/assignment.h"

#include "common/cuda_utils.cuh"
#include "common/dtype.h"
#include "common/dynamic_shared.cuh"
#include "common/warp.cuh"

namespace boxops::cuda {
namespace {

constexpr int kMaxThreads = 512;
constexpr int64_t kSharedWords = 48 * 1024 / 8 - 3 * kMaxThreads / 32 * 2;  // what the static arrays leave

// One problem with rows <= columns. `via` is a row; ~row once the column was scanned.
struct Problem {
  int64_t rows, columns, start, row_stride, column_stride;
  double scale;
  double *v, *distance;
  int64_t *via, *row_of, *column_of;
};

__host__ __device__ int64_t words_of(int64_t rows, int64_t columns) {
  return rows < columns ? rows + 4 * columns : columns + 4 * rows;
}

// The workspace of problem b begins here, in words of 8 bytes.
__host__ __device__ int64_t word_of(const AssignmentInput& in, int64_t b) {
  return in.is_ragged ? 4 * (b == in.batch ? in.rows : in.first_row(b)) + 4 * b * in.columns
                      : b * words_of(in.rows, in.columns);
}

__device__ Problem problem_of(const AssignmentInput& in, int64_t b, double* memory) {
  const int64_t n = in.rows_of(b), m = in.columns;
  Problem p;
  p.rows = n < m ? n : m, p.columns = n < m ? m : n;
  p.start = in.offset_of(b);
  p.row_stride = n > m ? in.column_stride : in.row_stride, p.column_stride = n > m ? in.row_stride : in.column_stride;
  p.v = memory, p.distance = p.v + p.columns;
  p.via = reinterpret_cast<int64_t*>(p.distance + p.columns), p.row_of = p.via + p.columns,
  p.column_of = p.row_of + p.columns;
  return p;
}

__device__ double cost_at(const AssignmentInput& in, const Problem& p, int64_t row, int64_t column) {
  return p.scale * load<double>(in.data, in.dtype, p.start + row * p.row_stride + column * p.column_stride);
}

// The nearest of the columns, ties to the lower rank, and how far the second nearest is.
struct Nearest {
  double distance, second;
  int64_t rank;

  __device__ void take(double other, double other_second, int64_t other_rank) {
    const double farther = other < distance ? distance : other;
    second = other_second < second ? other_second : second;
    second = farther < second ? farther : second;
    if (other < distance || (other == distance && other_rank < rank)) distance = other, rank = other_rank;
  }
};

constexpr Nearest kNone{kInfinity, kInfinity, kNoRank};

// What lanes exchange: the second nearest only where `two`.
template <bool two>
struct Exchanged : Nearest {};
template <bool two>
__device__ Exchanged<two> shuffle_xor(const Exchanged<two>& own, int bits) {
  return {{cuda::shuffle_xor(own.distance, bits), two ? cuda::shuffle_xor(own.second, bits) : kInfinity,
           cuda::shuffle_xor(own.rank, bits)}};
}
template <bool two>
__device__ Nearest nearest_of_warp(const Nearest& own) {
  return warp_reduce(Exchanged<two>{own}, [](Exchanged<two> a, const Exchanged<two>& b) {
    a.take(b.distance, b.second, b.rank);
    return a;
  });
}

// Of all threads, to all threads, which meet once. The second nearest only where `two`.
__device__ Nearest nearest_of_block(Nearest own, bool two, int& buffer) {
  __shared__ Nearest of_warp[2][kMaxThreads / 32];
  own = two ? nearest_of_warp<true>(own) : nearest_of_warp<false>(own);
  if (threadIdx.x % 32 == 0) of_warp[buffer][threadIdx.x / 32] = own;
  __syncthreads();
  own = of_warp[buffer][0];
  for (int w = 1; w < static_cast<int>(blockDim.x / 32); ++w) {
    const Nearest& other = of_warp[buffer][w];
    own.take(other.distance, other.second, other.rank);
  }
  buffer ^= 1;
  return own;
}

// Whether the costs are such that there is nothing to solve, and whether they need the scale.
__device__ bool look_at(const AssignmentInput& in, const Problem& p, double* scale) {
  const double sign = in.maximize ? -1.0 : 1.0;
  const int warps = blockDim.x / 32;
  bool wrong = false, huge = false;
  if (in.is_ragged)
    for (int64_t i = threadIdx.x; i < in.batch; i += blockDim.x)
      wrong |= in.ragged.offsets[i + 1] < in.ragged.offsets[i];
  // A warp goes along what lies closer in memory.
  const bool across = p.row_stride < p.column_stride;
  const int64_t outer = across ? p.columns : p.rows, inner = across ? p.rows : p.columns;
  const int64_t outer_stride = across ? p.column_stride : p.row_stride,
                inner_stride = across ? p.row_stride : p.column_stride;
  for (int64_t i = threadIdx.x / 32; i < outer; i += warps)
    for (int64_t j = threadIdx.x % 32; j < inner; j += 32) {
      const double cost = sign * load<double>(in.data, in.dtype, p.start + i * outer_stride + j * inner_stride);
      wrong |= !(cost > -kInfinity);
      huge |= cost < -kHuge || (cost > kHuge && cost < kInfinity);
    }
  *scale = __syncthreads_or(huge) ? sign * kScale : sign;
  return __syncthreads_or(wrong) == 0;
}

// The functions below are of all threads of the block, and true unless there is no finite assignment. They do what
// assignment_simd.inl does, to the bit.

// Column duals begin at the least costs where all columns are taken in the end, else at 0.
__device__ bool reduce_columns(const AssignmentInput& in, const Problem& p) {
  const int64_t t = threadIdx.x, threads = blockDim.x;
  bool impossible = false;
  for (int64_t j = t; j < p.columns; j += threads) {
    double least = p.rows == p.columns ? kInfinity : 0.0;
    for (int64_t i = 0; i < p.rows && p.rows == p.columns; ++i) {
      const double cost = cost_at(in, p, i, j);
      least = cost < least ? cost : least;
    }
    impossible |= !(least < kInfinity);
    p.v[j] = least, p.row_of[j] = -1;
  }
  for (int64_t i = t; i < p.rows; i += threads) p.column_of[i] = -1;
  return __syncthreads_or(impossible) == 0;
}

__device__ bool reduce_rows(const AssignmentInput& in, const Problem& p, int& buffer) {
  const int64_t t = threadIdx.x, threads = blockDim.x;
  int64_t steps = 2 * p.rows;
  for (int64_t i = 0; i < p.rows; ++i) {
    int64_t row = i, lost = -1;
    int moves = 0;
    while (row >= 0 && steps-- > 0) {
      Nearest own = kNone;
      for (int64_t j = t; j < p.columns; j += threads) {
        const double reduced = cost_at(in, p, row, j) - p.v[j];
        p.distance[j] = reduced;
        own.take(reduced, kInfinity, p.row_of[j] < 0 ? j : j + kTaken);
      }
      const Nearest found = nearest_of_block(own, true, buffer);
      if (!(found.distance < kInfinity)) return false;
      int64_t column = found.rank & ~kTaken;
      const double dual = p.v[column], lowered = dual - (found.second - found.distance);
      const bool lowers = found.second < kInfinity && lowered < dual;
      if (lowers) {
        moves = 0;
      } else if (found.rank >= kTaken) {
        if (moves++ == kTiedMoves) break;
        own = kNone;  // the first after `lost`
        for (int64_t j = t; j < p.columns; j += threads)
          if (p.distance[j] == found.distance) own.take(0.0, kInfinity, j > lost ? j : j + kTaken);
        column = nearest_of_block(own, false, buffer).rank & ~kTaken;
      }
      const int64_t before = p.row_of[column];
      __syncthreads();  // all have read
      if ((column & (threads - 1)) == t) {
        p.row_of[column] = row;
        if (lowers) p.v[column] = lowered;
      }
      if (t == 0) {
        p.column_of[row] = column;
        if (before >= 0) p.column_of[before] = -1;
      }
      row = before, lost = column;
    }
  }
  __syncthreads();
  return true;
}

__device__ bool augment(const AssignmentInput& in, const Problem& p, int& buffer) {
  const int64_t t = threadIdx.x, threads = blockDim.x;
  for (int64_t added = 0; added < p.rows; ++added) {
    if (p.column_of[added] >= 0) continue;
    int64_t row = added, column;
    double base = 0.0, least;
    for (bool first = true;; first = false) {
      Nearest own = kNone;
      for (int64_t j = t; j < p.columns; j += threads) {
        if (!first && p.via[j] < 0) continue;
        const double through = (cost_at(in, p, row, j) - p.v[j]) + base;
        double distance = first ? kInfinity : p.distance[j];
        if (first || through < distance) p.distance[j] = distance = through, p.via[j] = row;
        own.take(distance, kInfinity, p.row_of[j] < 0 ? j : j + kTaken);
      }
      const Nearest found = nearest_of_block(own, false, buffer);
      least = found.distance, column = found.rank & ~kTaken;
      if (!(least < kInfinity)) return false;
      if (found.rank < kTaken) break;
      row = p.row_of[column];
      base = least - (cost_at(in, p, row, column) - p.v[column]);
      if ((column & (threads - 1)) == t) p.via[column] = ~p.via[column];
    }
    for (int64_t j = t; j < p.columns; j += threads)
      if (p.via[j] < 0) p.v[j] -= least - p.distance[j];
    __syncthreads();
    if (t == 0) {
      while (column >= 0) {
        const int64_t by = p.via[column] < 0 ? ~p.via[column] : p.via[column], next = p.column_of[by];
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

// A block solves one problem after another.
__global__ void __launch_bounds__(kMaxThreads)
    solve_kernel(AssignmentInput in, int64_t shared_words, double* workspace, int64_t* row_ind, int64_t* col_ind) {
  for (int64_t b = blockIdx.x; b < in.batch; b += gridDim.x) {
    const int64_t n = in.rows_of(b), m = in.columns;
    const bool shared = words_of(n, m) <= shared_words;
    Problem p = problem_of(in, b, shared ? dynamic_shared<double>() : workspace + word_of(in, b));
    int buffer = 0;
    const bool solved =
        look_at(in, p, &p.scale) && reduce_columns(in, p) && reduce_rows(in, p, buffer) && augment(in, p, buffer);
    if (in.is_ragged) {
      const int64_t first = in.first_row(b);
      const int64_t* columns = n > m ? p.row_of : p.column_of;
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
int64_t max_words(const AssignmentInput& in) { return words_of(in.rows, in.columns); }

}  // namespace

size_t linear_sum_assignment_workspace(const AssignmentInput& in) {
  return max_words(in) <= kSharedWords ? 0 : static_cast<size_t>(word_of(in, in.batch)) * 8;
}

int linear_sum_assignment(const AssignmentInput& in, int64_t* row_ind, int64_t* col_ind, void* workspace,
                          void* stream) {
  if (in.is_ragged)
    BOXOPS_TRY(launch(fill_kernel, grid_x(blocks_of(in.rows, 256)), 256, stream, in.rows, row_ind, col_ind));
  if (in.batch == 0 || in.rows == 0 || in.columns == 0) return cudaSuccess;
  const int64_t words = max_words(in), shared = words < kSharedWords ? words : kSharedWords;
  const int64_t rows = in.is_ragged ? blocks_of(in.rows, in.batch) : in.rows;
  const int64_t columns = rows > in.columns ? rows : in.columns;
  const int64_t max_threads = columns > 4096 ? kMaxThreads : 256;
  int64_t threads = 32;  // a power of two, so that a column's thread is found without a division
  while (threads < columns && threads < max_threads) threads *= 2;
  return launch_with(static_cast<size_t>(shared) * 8, solve_kernel, grid_x(in.batch), static_cast<unsigned>(threads),
                     stream, in, shared, static_cast<double*>(workspace), row_ind, col_ind);
}

}  // namespace boxops::cuda
