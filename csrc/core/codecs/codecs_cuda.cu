#include "codecs/codecs.h"
#include "common/cuda_utils.cuh"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 256;

// A view, and whether its boxes lie as AlignedBox<T>.
template <class T>
struct View {
  Boxes boxes;
  bool aligned;
  explicit View(const Boxes& b)
      : boxes(b),
        aligned(b.dtype == dtype_of<T>() && b.coord_stride == 1 && b.box_stride % 4 == 0 && b.batch_stride % 4 == 0 &&
                reinterpret_cast<uintptr_t>(b.data) % alignof(AlignedBox<T>) == 0) {}

  __device__ Box<T> operator()(int64_t at) const {
    const int64_t batch = boxes.batch == 1 ? 0 : at / boxes.count, i = at - batch * boxes.count;
    if (!aligned) return load_numbers<T>(boxes, batch, i);
    const T* from = static_cast<const T*>(boxes.data) + batch * boxes.batch_stride + i * boxes.box_stride;
    return *reinterpret_cast<const AlignedBox<T>*>(from);
  }
};

template <class T>
__device__ void put(T* boxes, int64_t i, const Box<T>& b) {
  reinterpret_cast<AlignedBox<T>*>(boxes)[i] = {b};
}

// Every kernel: a thread per box and its anchor.
template <class F>
__device__ void for_each_box(int64_t count, F f) {
  for (const int64_t at : grid_stride<kThreads>(count)) f(at);
}

// The boxes of a launch of decoding, and the sizes of their images: these travel with the launch.
struct Images {
  static constexpr int kMax = 32;
  int64_t first, count;  // boxes
  int64_t boxes;         // of an image
  bool clips, several;
  double sides[2 * kMax];

  __device__ ImageSize of(int64_t i) const {
    const int64_t image = several ? i / boxes : 0;
    return {clips, sides[2 * image], sides[2 * image + 1]};
  }
};

// Calls f(images) for kMax images at a time.
template <class F>
int for_images(const ImageSizes& sizes, int64_t boxes, F f) {
  const int64_t count = max_of<int64_t>(sizes.count, 1);
  Images images = {0, 0, boxes / count, sizes.count > 0, sizes.count > 1, {}};
  for (int64_t first = 0; first < count; first += Images::kMax) {
    const int64_t n = min_of<int64_t>(count - first, Images::kMax);
    if (images.clips)
      for (int64_t i = 0; i < 2 * n; ++i) images.sides[i] = sizes.sides[2 * first + i];
    images.first = first * images.boxes, images.count = n * images.boxes;
    BOXOPS_TRY(f(images));
  }
  return cudaSuccess;
}

template <class T>
__global__ void encode_kernel(View<T> boxes, View<T> anchors, int64_t count, CodecOptions o, T* deltas) {
  for_each_box(count, [&](int64_t at) { put(deltas, at, encode_box(boxes(at), anchors(at), o)); });
}

template <class T>
__global__ void decode_kernel(View<T> deltas, View<T> anchors, Images images, CodecOptions o, T* boxes) {
  for_each_box(images.count, [&](int64_t i) {
    const int64_t at = images.first + i;
    const ImageSize size = images.of(i);
    const Box<T> b = decode_box(deltas(at), anchors(at), o);
    put(boxes, at, size.clips ? clip_box(b, static_cast<T>(size.height), static_cast<T>(size.width)) : b);
  });
}

template <class T>
__device__ void put_gradient(T* self, T* anchors, int64_t at, const CodecGradient<T>& g) {
  put(self, at, g.self);
  if (anchors) put(anchors, at, g.anchor);
}

template <class T>
__global__ void encode_backward_kernel(View<T> boxes, View<T> anchors, int64_t count, CodecOptions o, View<T> grad,
                                       T* grad_boxes, T* grad_anchors) {
  for_each_box(count, [&](int64_t at) {
    put_gradient(grad_boxes, grad_anchors, at, encode_gradient(boxes(at), anchors(at), o, grad(at)));
  });
}

template <class T>
__global__ void decode_backward_kernel(View<T> deltas, View<T> anchors, Images images, CodecOptions o, View<T> grad,
                                       T* grad_deltas, T* grad_anchors) {
  for_each_box(images.count, [&](int64_t i) {
    const int64_t at = images.first + i;
    put_gradient(grad_deltas, grad_anchors, at, decode_gradient(deltas(at), anchors(at), o, images.of(i), grad(at)));
  });
}

int64_t count_of(int64_t count) { return count; }
int64_t count_of(const Images& images) { return images.count; }

// `range`: how many boxes, or images.
template <class T, class Kernel, class Range, class... Args>
int launch_pairs(Kernel kernel, const Boxes& first, const Boxes& anchors, const Range& range, void* stream,
                 Args... args) {
  return launch(kernel, grid_x(blocks_of(count_of(range), kThreads)), kThreads, stream, View<T>(first),
                View<T>(anchors), range, args...);
}

}  // namespace

int encode_boxes(const Boxes& boxes, const Boxes& anchors, const CodecOptions& o, void* deltas, void* stream) {
  return with_compute_type(compute_type(boxes.dtype, anchors.dtype), [&](auto t) {
    using T = decltype(t);
    return launch_pairs<T>(encode_kernel<T>, boxes, anchors, boxes.batch * boxes.count, stream, o,
                           static_cast<T*>(deltas));
  });
}

int decode_boxes(const Boxes& deltas, const Boxes& anchors, const CodecOptions& o, const ImageSizes& sizes, void* boxes,
                 void* stream) {
  return with_compute_type(compute_type(deltas.dtype, anchors.dtype), [&](auto t) {
    using T = decltype(t);
    return for_images(sizes, deltas.batch * deltas.count, [&](const Images& images) {
      return launch_pairs<T>(decode_kernel<T>, deltas, anchors, images, stream, o, static_cast<T*>(boxes));
    });
  });
}

int encode_boxes_backward(const Boxes& boxes, const Boxes& anchors, const CodecOptions& o, const Boxes& grad,
                          void* grad_boxes, void* grad_anchors, void* stream) {
  return with_compute_type(compute_type(boxes.dtype, anchors.dtype), [&](auto t) {
    using T = decltype(t);
    return launch_pairs<T>(encode_backward_kernel<T>, boxes, anchors, boxes.batch * boxes.count, stream, o,
                           View<T>(grad), static_cast<T*>(grad_boxes), static_cast<T*>(grad_anchors));
  });
}

int decode_boxes_backward(const Boxes& deltas, const Boxes& anchors, const CodecOptions& o, const ImageSizes& sizes,
                          const Boxes& grad, void* grad_deltas, void* grad_anchors, void* stream) {
  return with_compute_type(compute_type(deltas.dtype, anchors.dtype), [&](auto t) {
    using T = decltype(t);
    return for_images(sizes, deltas.batch * deltas.count, [&](const Images& images) {
      return launch_pairs<T>(decode_backward_kernel<T>, deltas, anchors, images, stream, o, View<T>(grad),
                             static_cast<T*>(grad_deltas), static_cast<T*>(grad_anchors));
    });
  });
}

}  // namespace boxops::cuda
