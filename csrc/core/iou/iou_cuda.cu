#include <boxops/iou.h>

#include "common/cuda_utils.cuh"
#include "common/divide.cuh"
#include "common/geometry.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kColumns = 4;  // columns per thread
constexpr int kRows = 16;    // rows per block, shared by all its threads

// A thread computes kRows x kColumns pairs: its columns stay in registers, the block's rows in
// shared memory. Neighbouring threads hold neighbouring columns, so each store fills whole lines.
template <Measure measure, class T>
__global__ void __launch_bounds__(kThreads) pairwise_kernel(Boxes boxes1, Boxes boxes2, T iou_eps, T eps, T* out) {
  __shared__ Shape<T> rows[kRows];
  for (int64_t batch = blockIdx.z; batch < boxes1.batch; batch += gridDim.z) {
    for (int64_t row = int64_t(blockIdx.y) * kRows; row < boxes1.count; row += int64_t(gridDim.y) * kRows) {
      const int n = static_cast<int>(min_of<int64_t>(kRows, boxes1.count - row));
      __syncthreads();
      if (static_cast<int>(threadIdx.x) < n)
        rows[threadIdx.x] = shape_of<measure>(load_box<T>(boxes1, batch, row + threadIdx.x));
      __syncthreads();
      for (int64_t first = int64_t(blockIdx.x) * kThreads * kColumns + threadIdx.x; first < boxes2.count;
           first += int64_t(gridDim.x) * kThreads * kColumns) {
        Shape<T> columns[kColumns];
#pragma unroll
        for (int k = 0; k < kColumns; ++k)
          if (first + k * kThreads < boxes2.count)
            columns[k] = shape_of<measure>(load_box<T>(boxes2, batch, first + k * kThreads));
        T* to = out + (batch * boxes1.count + row) * boxes2.count + first;
        for (int i = 0; i < n; ++i, to += boxes2.count) {
#pragma unroll
          for (int k = 0; k < kColumns; ++k)
            if (first + k * kThreads < boxes2.count)
              to[k * kThreads] = measure_of<measure>(rows[i], columns[k], iou_eps, eps);
        }
      }
    }
  }
}

// box_iou of float32, the same bits as pairwise_kernel's: a thread's columns are neighbours, so that it stores them at
// once; their divisions are branch-free where one test finds the operands of all four in bounds, which leaves nothing
// to guard, and else each is done with all its guards. `out` is aligned and boxes2.count divisible by kColumns.
__global__ void __launch_bounds__(kThreads) iou_kernel(Boxes boxes1, Boxes boxes2, float* out) {
  static_assert(kColumns == 4, "stored as a float4");
  __shared__ Shape<float> rows[kRows];
  for (int64_t batch = blockIdx.z; batch < boxes1.batch; batch += gridDim.z) {
    for (int64_t row = int64_t(blockIdx.y) * kRows; row < boxes1.count; row += int64_t(gridDim.y) * kRows) {
      const int n = static_cast<int>(min_of<int64_t>(kRows, boxes1.count - row));
      __syncthreads();
      if (static_cast<int>(threadIdx.x) < n)
        rows[threadIdx.x] = shape_of<Measure::kIoU>(load_box<float>(boxes1, batch, row + threadIdx.x));
      __syncthreads();
      for (int64_t first = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kColumns; first < boxes2.count;
           first += int64_t(gridDim.x) * kThreads * kColumns) {
        Shape<float> columns[kColumns];
#pragma unroll
        for (int k = 0; k < kColumns; ++k)
          columns[k] = shape_of<Measure::kIoU>(load_box<float>(boxes2, batch, first + k));
        float* to = out + (batch * boxes1.count + row) * boxes2.count + first;
#pragma unroll 1
        for (int i = 0; i < n; ++i, to += boxes2.count) {
          const Shape<float> row_box = rows[i];
          float iou[kColumns];
          bool in_bounds = true;
#pragma unroll
          for (int k = 0; k < kColumns; ++k) {
            const Shape<float>& c = columns[k];
            const float inter = quick_intersection(row_box, c), whole = union_of(inter, row_box.area, c.area);
            in_bounds =
                in_bounds & (whole > kMinOperand) & (whole < kMaxOperand) & ((inter == 0.0f) | (inter > kMinOperand));
            iou[k] = quotient(inter, whole);
          }
          if (!in_bounds)
#pragma unroll
            for (int k = 0; k < kColumns; ++k) iou[k] = iou_of(row_box, columns[k]);
          *reinterpret_cast<float4*>(to) = make_float4(iou[0], iou[1], iou[2], iou[3]);
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
    out[at] = measure_of<measure>(shape_of<measure>(load_box<T>(boxes1, batch, i)),
                                  shape_of<measure>(load_box<T>(boxes2, batch, i)), iou_eps, eps);
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

}  // namespace

int iou(const Boxes& boxes1, const Boxes& boxes2, const MeasureOptions& o, void* out, void* stream) {
  return with_compute_type(compute_type(boxes1.dtype, boxes2.dtype), [&](auto t) {
    using T = decltype(t);
    int error = cudaSuccess;
    T* to = static_cast<T*>(out);
    const dim3 grid(grid_x(blocks_of(boxes2.count, kThreads * kColumns)), grid_yz(blocks_of(boxes1.count, kRows)),
                    grid_yz(boxes1.batch));
    if constexpr (sizeof(T) == sizeof(float))
      if (o.measure == Measure::kIoU && !o.paired && o.iou_eps == 0 && boxes2.count % kColumns == 0 &&
          reinterpret_cast<uintptr_t>(out) % sizeof(float4) == 0)
        return launch(iou_kernel, grid, kThreads, stream, boxes1, boxes2, to);
    with_measure(o.measure, [&](auto measure) {
      if (o.paired)
        error = launch(paired_kernel<measure(), T>, grid_x(blocks_of(boxes1.batch * boxes1.count, kThreads)), kThreads,
                       stream, boxes1, boxes2, o.iou_eps, o.eps, to);
      else error = launch(pairwise_kernel<measure(), T>, grid, kThreads, stream, boxes1, boxes2, o.iou_eps, o.eps, to);
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
