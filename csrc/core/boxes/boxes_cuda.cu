#include "boxes/boxes.h"
#include "common/select.cuh"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 256;

// A thread per box.
template <class T>
__global__ void area_kernel(Boxes boxes, T* out) {
  for (const int64_t i : grid_stride<kThreads>(boxes.count)) out[i] = area(load_box<T>(boxes, 0, i));
}

// A thread per box.
template <class T>
__global__ void convert_kernel(Boxes boxes, Format to, void* out, DType out_type) {
  for (const int64_t i : grid_stride<kThreads>(boxes.count))
    store_box(out, out_type, i, convert_box(load_numbers<T>(boxes, 0, i), boxes.format, to));
}

// A thread per coordinate, in the boxes' own type.
template <class S>
__global__ void clip_kernel(Boxes boxes, S height, S width, S* out) {
  const S* in = static_cast<const S*>(boxes.data);
  for (const int64_t at : grid_stride<kThreads>(boxes.count * 4))
    out[at] = clip(in[at / 4 * boxes.box_stride + at % 4 * boxes.coord_stride], at % 2 ? height : width);
}

// A thread per box, for float16 and bfloat16.
__global__ void clip_half_kernel(Boxes boxes, float height, float width, void* out) {
  for (const int64_t i : grid_stride<kThreads>(boxes.count))
    store_box(out, boxes.dtype, i, clip_box(load_box<float>(boxes, 0, i), height, width));
}

template <class S>
int clip_as(const Boxes& boxes, double height, double width, void* out, void* stream) {
  return launch(clip_kernel<S>, grid_x(blocks_of(boxes.count * 4, kThreads)), kThreads, stream, boxes,
                limit_as<S>(height), limit_as<S>(width), static_cast<S*>(out));
}

template <class T>
struct IsLarge {
  Boxes boxes;
  T min_size;
  __device__ bool operator()(int64_t i) const { return is_large(load_box<T>(boxes, 0, i), min_size); }
};

}  // namespace

int box_area(const Boxes& boxes, void* out, void* stream) {
  return with_compute_type(boxes.dtype, [&](auto t) {
    using T = decltype(t);
    return launch(area_kernel<T>, grid_x(blocks_of(boxes.count, kThreads)), kThreads, stream, boxes,
                  static_cast<T*>(out));
  });
}

int box_convert(const Boxes& boxes, Format to, void* out, DType out_type, void* stream) {
  return with_compute_type(boxes.dtype, [&](auto t) {
    using T = decltype(t);
    return launch(convert_kernel<T>, grid_x(blocks_of(boxes.count, kThreads)), kThreads, stream, boxes, to, out,
                  out_type);
  });
}

int clip_boxes(const Boxes& boxes, double height, double width, void* out, void* stream) {
  switch (boxes.dtype) {
    case DType::kUInt8: return clip_as<uint8_t>(boxes, height, width, out, stream);
    case DType::kInt8: return clip_as<int8_t>(boxes, height, width, out, stream);
    case DType::kUInt16: return clip_as<uint16_t>(boxes, height, width, out, stream);
    case DType::kInt16: return clip_as<int16_t>(boxes, height, width, out, stream);
    case DType::kUInt32: return clip_as<uint32_t>(boxes, height, width, out, stream);
    case DType::kInt32: return clip_as<int32_t>(boxes, height, width, out, stream);
    case DType::kUInt64: return clip_as<uint64_t>(boxes, height, width, out, stream);
    case DType::kInt64: return clip_as<int64_t>(boxes, height, width, out, stream);
    case DType::kFloat32: return clip_as<float>(boxes, height, width, out, stream);
    case DType::kFloat64: return clip_as<double>(boxes, height, width, out, stream);
    default:
      return launch(clip_half_kernel, grid_x(blocks_of(boxes.count, kThreads)), kThreads, stream, boxes, height, width,
                    out);
  }
}

size_t large_boxes_workspace(int64_t count) { return select_workspace(count); }

int large_boxes(const Boxes& boxes, double min_size, int64_t* indices, int64_t* count, void* workspace, void* stream) {
  return with_compute_type(boxes.dtype, [&](auto t) {
    using T = decltype(t);
    return select(boxes.count, IsLarge<T>{boxes, static_cast<T>(min_size)}, indices, count, workspace, stream);
  });
}

}  // namespace boxops::cuda
