#include <boxops/iou.h>

#include "common/cuda_utils.cuh"
#include "common/load_box.cuh"
#include "common/ordinary.cuh"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kColumns = 4;  // columns per thread
constexpr int kMaxRows = 64;
constexpr int kEnoughBlocks = 1024;  // several for each multiprocessor

// A row's box, aligned so that the compiler loads 16 bytes at a time.
template <class T>
struct alignas(8 * sizeof(T)) Row {
  Shape<T> shape;
  int ordinary;
};

// Of a row with a thread's columns; `quick`: all are ordinary. Their measures have no branch then, so that the
// latencies of the columns overlap.
template <Measure measure, class T>
__device__ void measure_row(const Shape<T>& row, const Shape<T> (&columns)[kColumns], bool quick, T iou_eps, T eps,
                            T (&values)[kColumns]) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (quick) {
#pragma unroll
      for (int k = 0; k < kColumns; ++k) values[k] = ordinary_measure_of<measure>(row, columns[k], eps);
      return;
    }
  }
#pragma unroll
  for (int k = 0; k < kColumns; ++k) values[k] = measure_of<measure>(row, columns[k], iou_eps, eps);
}

// Block (x, y, z): kThreads * kColumns columns, a thread's in its registers, by n_rows rows, whose boxes all threads
// share. A thread's columns are neighbours (step 1), which it stores at once,
//
//     row i   | thread 0: 4 columns | thread 1: 4 columns | ...
//
// where boxes2.count is divisible by kColumns and `out` aligned; else those of the threads are (step kThreads).
template <Measure measure, int step, class T>
__global__ void __launch_bounds__(kThreads)
    pairwise_kernel(Boxes boxes1, Boxes boxes2, int n_rows, bool quick, T iou_eps, T eps, T* out) {
  __shared__ Row<T> rows[kMaxRows];
  const int64_t count = boxes2.count;
  const int64_t first = int64_t(blockIdx.x) * kThreads * kColumns + threadIdx.x * (step == 1 ? kColumns : 1);
  for (int64_t batch = blockIdx.z; batch < boxes1.batch; batch += gridDim.z) {
    Shape<T> columns[kColumns];
    int ordinary = quick;
#pragma unroll
    for (int k = 0; k < kColumns; ++k) {
      columns[k] = shape_of<measure>(load_box_at_once<T, true>(boxes2, batch, min_of(first + k * step, count - 1)));
      ordinary &= is_ordinary<measure>(columns[k]);
    }
    for (int64_t row = int64_t(blockIdx.y) * n_rows; row < boxes1.count; row += int64_t(gridDim.y) * n_rows) {
      const int n = static_cast<int>(min_of<int64_t>(n_rows, boxes1.count - row));
      __syncthreads();
      if (static_cast<int>(threadIdx.x) < n) {
        const Shape<T> box = shape_of<measure>(load_box_at_once<T, true>(boxes1, batch, row + threadIdx.x));
        rows[threadIdx.x] = {box, is_ordinary<measure>(box)};
      }
      __syncthreads();
      T* to = out + (batch * boxes1.count + row) * count + first;
#pragma unroll 1
      for (int i = 0; first < count && i < n; ++i, to += count) {
        const Shape<T> box = rows[i].shape;
        T values[kColumns];
        measure_row<measure>(box, columns, ordinary & rows[i].ordinary, iou_eps, eps, values);
        if constexpr (step == 1) {
          *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
        } else {
#pragma unroll
          for (int k = 0; k < kColumns; ++k)
            if (first + k * step < count) to[k * step] = values[k];
        }
      }
    }
  }
}

// A thread computes one pair.
template <Measure measure, class T>
__global__ void __launch_bounds__(kThreads) paired_kernel(Boxes boxes1, Boxes boxes2, T iou_eps, T eps, T* out) {
  const int64_t total = boxes1.batch * boxes1.count;
  for (const int64_t at : grid_stride<kThreads>(total)) {
    const int64_t batch = at / boxes1.count, i = at % boxes1.count;
    out[at] = measure_of<measure>(shape_of<measure>(load_box_at_once<T>(boxes1, batch, i)),
                                  shape_of<measure>(load_box_at_once<T>(boxes2, batch, i)), iou_eps, eps);
  }
}

constexpr int kSelves = 32;  // boxes of the side whose gradient is computed, one per lane
constexpr int kOthers = 8;   // partial sums per box, one per warp

// Block: the gradients of kSelves boxes of one side. Thread (x, y) sums over the others y, y + 8,
// ...; the 8 partial sums are added in order, so the result does not depend on the schedule.
template <Measure measure, bool second, class T>
__global__ void __launch_bounds__(kSelves* kOthers)
    gradient_kernel(Boxes self, Boxes other, bool paired, T iou_eps, T eps, const T* grad, int64_t self_stride,
                    int64_t other_stride, T* out) {
  __shared__ Box<T> partial[kOthers][kSelves];
  const int64_t opposite = paired ? 1 : other.count;
  for (int64_t batch = blockIdx.y; batch < self.batch; batch += gridDim.y) {
    for (int64_t first = int64_t(blockIdx.x) * kSelves; first < self.count; first += int64_t(gridDim.x) * kSelves) {
      const int64_t i = first + threadIdx.x;
      Box<T> sum = {T(0), T(0), T(0), T(0)};
      if (i < self.count) {
        const Shape<T> own = shape_of<measure>(load_box<T>(self, batch, i));
        const T* g = grad + batch * self.count * opposite + i * self_stride;
        for (int64_t j = threadIdx.y; j < opposite; j += kOthers) {
          const Shape<T> theirs = shape_of<measure>(load_box<T>(other, batch, paired ? i : j));
          const Box<T> d = measure_gradient<measure, second>(second ? theirs : own, second ? own : theirs, iou_eps, eps,
                                                             g[j * other_stride]);
          sum.x1 += d.x1, sum.y1 += d.y1, sum.x2 += d.x2, sum.y2 += d.y2;
        }
      }
      partial[threadIdx.y][threadIdx.x] = sum;
      __syncthreads();
      if (threadIdx.y == 0 && i < self.count) {
        for (int y = 1; y < kOthers; ++y) {
          const Box<T> p = partial[y][threadIdx.x];
          sum.x1 += p.x1, sum.y1 += p.y1, sum.x2 += p.x2, sum.y2 += p.y2;
        }
        sum = gradient_from_corners(sum, self.format);
        T* to = out + (batch * self.count + i) * 4;
        to[0] = sum.x1, to[1] = sum.y1, to[2] = sum.x2, to[3] = sum.y2;
      }
      __syncthreads();
    }
  }
}

template <Measure measure, class T>
int pairwise(const Boxes& boxes1, const Boxes& boxes2, const MeasureOptions& o, T* out, void* stream) {
  const int64_t across = blocks_of(boxes2.count, kThreads * kColumns);
  int n_rows = kMaxRows;
  while (n_rows > 8 && across * blocks_of(boxes1.count, n_rows) * boxes1.batch < kEnoughBlocks) n_rows /= 2;
  const dim3 grid(grid_x(across), grid_yz(blocks_of(boxes1.count, n_rows)), grid_yz(boxes1.batch));
  const bool quick = are_ordinary<measure>(o.iou_eps, o.eps);
  if constexpr (sizeof(T) == sizeof(float))
    if (boxes2.count % kColumns == 0 && reinterpret_cast<uintptr_t>(out) % sizeof(float4) == 0)
      return launch(pairwise_kernel<measure, 1, T>, grid, kThreads, stream, boxes1, boxes2, n_rows, quick, o.iou_eps,
                    o.eps, out);
  return launch(pairwise_kernel<measure, kThreads, T>, grid, kThreads, stream, boxes1, boxes2, n_rows, quick, o.iou_eps,
                o.eps, out);
}

}  // namespace

int iou(const Boxes& boxes1, const Boxes& boxes2, const MeasureOptions& o, void* out, void* stream) {
  return with_compute_type(compute_type(boxes1.dtype, boxes2.dtype), [&](auto t) {
    using T = decltype(t);
    int error = cudaSuccess;
    T* to = static_cast<T*>(out);
    with_measure(o.measure, [&](auto measure) {
      if (o.paired)
        error = launch(paired_kernel<measure(), T>, grid_x(blocks_of(boxes1.batch * boxes1.count, kThreads)), kThreads,
                       stream, boxes1, boxes2, o.iou_eps, o.eps, to);
      else error = pairwise<measure(), T>(boxes1, boxes2, o, to, stream);
    });
    return error;
  });
}

int iou_backward(const Boxes& boxes1, const Boxes& boxes2, const MeasureOptions& o, const void* grad_out, void* grad1,
                 void* grad2, void* stream) {
  return with_compute_type(compute_type(boxes1.dtype, boxes2.dtype), [&](auto t) {
    using T = decltype(t);
    const int64_t m = o.paired ? 1 : boxes2.count;
    const T* grads = static_cast<const T*>(grad_out);
    const dim3 block(kSelves, kOthers);
    int error = cudaSuccess;
    with_measure(o.measure, [&](auto measure) {
      error = launch(gradient_kernel<measure(), false, T>,
                     dim3(grid_x(blocks_of(boxes1.count, kSelves)), grid_yz(boxes1.batch)), block, stream, boxes1,
                     boxes2, o.paired, o.iou_eps, o.eps, grads, m, 1, static_cast<T*>(grad1));
      if (error == cudaSuccess)
        error = launch(gradient_kernel<measure(), true, T>,
                       dim3(grid_x(blocks_of(boxes2.count, kSelves)), grid_yz(boxes2.batch)), block, stream, boxes2,
                       boxes1, o.paired, o.iou_eps, o.eps, grads, 1, m, static_cast<T*>(grad2));
    });
    return error;
  });
}

}  // namespace boxops::cuda
