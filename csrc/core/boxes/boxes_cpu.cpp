#include "boxes/boxes.h"

namespace boxops::cpu {
namespace {

constexpr double kBoxNs = 1;  // the cost of a box on one core

// Calls f(i, numbers) for every box; the loop is compiled once more for the common layout.
template <class T, class F>
void for_each_box(const Boxes& boxes, const Parallel& parallel, F f) {
  parallel.share(boxes.count, kBoxNs, [&](int64_t begin, int64_t end) {
    if (boxes.coord_stride == 1 && boxes.dtype == dtype_of<T>()) {
      const T* p = static_cast<const T*>(boxes.data) + begin * boxes.box_stride;
      for (int64_t i = begin; i < end; ++i, p += boxes.box_stride) f(i, Box<T>{p[0], p[1], p[2], p[3]});
    } else {
      for (int64_t i = begin; i < end; ++i) f(i, load_numbers<T>(boxes, 0, i));
    }
  });
}

template <class S>
void clip_as(const Boxes& boxes, double height, double width, S* out, const Parallel& parallel) {
  const S h = limit_as<S>(height), w = limit_as<S>(width);
  const S* in = static_cast<const S*>(boxes.data);
  parallel.share(boxes.count, kBoxNs, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const S* p = in + i * boxes.box_stride;
      const int64_t s = boxes.coord_stride;
      out[4 * i] = clip(p[0], w), out[4 * i + 1] = clip(p[s], h);
      out[4 * i + 2] = clip(p[2 * s], w), out[4 * i + 3] = clip(p[3 * s], h);
    }
  });
}

}  // namespace

void box_area(const Boxes& boxes, void* out, const Parallel& parallel) {
  with_compute_type(boxes.dtype, [&](auto t) {
    using T = decltype(t);
    T* o = static_cast<T*>(out);
    for_each_box<T>(boxes, parallel, [=](int64_t i, const Box<T>& b) { o[i] = area(to_corners(b, boxes.format)); });
  });
}

void box_convert(const Boxes& boxes, Format to, void* out, DType out_type, const Parallel& parallel) {
  with_compute_type(boxes.dtype, [&](auto t) {
    using T = decltype(t);
    if (out_type == dtype_of<T>()) {
      T* o = static_cast<T*>(out);
      for_each_box<T>(boxes, parallel, [=](int64_t i, const Box<T>& b) {
        const Box<T> c = convert_box(b, boxes.format, to);
        o[4 * i] = c.x1, o[4 * i + 1] = c.y1, o[4 * i + 2] = c.x2, o[4 * i + 3] = c.y2;
      });
    } else {
      for_each_box<T>(boxes, parallel, [=](int64_t i, const Box<T>& b) {
        store_box(out, out_type, i, convert_box(b, boxes.format, to));
      });
    }
  });
}

void clip_boxes(const Boxes& boxes, double height, double width, void* out, const Parallel& parallel) {
  switch (boxes.dtype) {
    case DType::kUInt8: return clip_as(boxes, height, width, static_cast<uint8_t*>(out), parallel);
    case DType::kInt8: return clip_as(boxes, height, width, static_cast<int8_t*>(out), parallel);
    case DType::kUInt16: return clip_as(boxes, height, width, static_cast<uint16_t*>(out), parallel);
    case DType::kInt16: return clip_as(boxes, height, width, static_cast<int16_t*>(out), parallel);
    case DType::kUInt32: return clip_as(boxes, height, width, static_cast<uint32_t*>(out), parallel);
    case DType::kInt32: return clip_as(boxes, height, width, static_cast<int32_t*>(out), parallel);
    case DType::kUInt64: return clip_as(boxes, height, width, static_cast<uint64_t*>(out), parallel);
    case DType::kInt64: return clip_as(boxes, height, width, static_cast<int64_t*>(out), parallel);
    case DType::kFloat32: return clip_as(boxes, height, width, static_cast<float*>(out), parallel);
    case DType::kFloat64: return clip_as(boxes, height, width, static_cast<double*>(out), parallel);
    default:
      for_each_box<float>(boxes, parallel, [=](int64_t i, const Box<float>& b) {
        store_box(out, boxes.dtype, i, clip_box(b, static_cast<float>(height), static_cast<float>(width)));
      });
  }
}

int64_t large_boxes(const Boxes& boxes, double min_size, int64_t* indices) {
  return with_compute_type(boxes.dtype, [&](auto t) {
    using T = decltype(t);
    int64_t count = 0;
    for_each_box<T>(boxes, Serial(), [&](int64_t i, const Box<T>& b) {
      indices[count] = i;
      count += is_large(b, static_cast<T>(min_size));
    });
    return count;
  });
}

}  // namespace boxops::cpu
