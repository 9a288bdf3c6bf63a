#include "codecs/codecs.h"

#include <algorithm>

#include "common/isa.h"

namespace boxops {
namespace {

template <class T>
BOXOPS_HD Box<T> row(const T* rows, int64_t i) {
  return {rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]};
}

template <class T>
BOXOPS_HD void set_row(T* rows, int64_t i, const Box<T>& b) {
  rows[4 * i] = b.x1, rows[4 * i + 1] = b.y1, rows[4 * i + 2] = b.x2, rows[4 * i + 3] = b.y2;
}

}  // namespace
}  // namespace boxops

#define BOXOPS_SIMD_SOURCE "codecs/codecs_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

constexpr int64_t kTile = 256;  // rows converted at a time where they do not lie ready
constexpr double kBoxNs = 2;    // the cost of a box on one core

// A view as rows of T: the memory itself where boxes follow each other there, else a tile of copies.
template <class T>
class Rows {
 public:
  explicit Rows(const Boxes& boxes) : boxes_(boxes) {
    plain_ = boxes.dtype == dtype_of<T>() && boxes.coord_stride == 1;
    joined_ = plain_ && (boxes.count == 1 || boxes.box_stride == 4);
    whole_ = joined_ && (boxes.batch == 1 || boxes.batch_stride == 4 * boxes.count);
  }
  bool whole() const { return whole_; }

  // Rows [begin, begin + n) of all batch items in a row.
  const T* at(int64_t begin, int64_t n, T* tile) const {
    const T* data = static_cast<const T*>(boxes_.data);
    if (whole_) return data + 4 * begin;
    int64_t batch = begin / boxes_.count, i = begin % boxes_.count;
    if (joined_ && i + n <= boxes_.count) return data + batch * boxes_.batch_stride + 4 * i;
    for (int64_t j = 0; j < n; ++j) {
      const T* from = data + batch * boxes_.batch_stride + i * boxes_.box_stride;
      set_row(tile, j, plain_ ? row(from, 0) : load_numbers<T>(boxes_, batch, i));
      if (++i == boxes_.count) i = 0, ++batch;
    }
    return tile;
  }

 private:
  Boxes boxes_;
  bool plain_, joined_, whole_;
};

// Calls f(place, number, rows of each view) for all rows, in pieces.
template <class T, class F, class... More>
void for_each_rows(const Parallel& parallel, F f, const Boxes& first, const More&... more) {
  constexpr size_t n_views = 1 + sizeof...(More);
  const Rows<T> views[n_views] = {Rows<T>(first), Rows<T>(more)...};
  const bool whole = std::all_of(views, views + n_views, [](const Rows<T>& rows) { return rows.whole(); });
  parallel.share(first.batch * first.count, kBoxNs, [&](int64_t begin, int64_t end) {
    alignas(64) T tiles[n_views][4 * kTile];
    const int64_t step = whole ? end - begin : kTile;
    for (int64_t at = begin; at < end; at += step) {
      const int64_t n = std::min(step, end - at);
      const T* rows[n_views];
      for (size_t v = 0; v < n_views; ++v) rows[v] = views[v].at(at, n, tiles[v]);
      f(at, n, rows);
    }
  });
}

// Calls f(first, number, size) for the rows of each image among those from `at` on, of which each image has `rows`.
template <class F>
void by_image(const ImageSizes& sizes, int64_t rows, int64_t at, int64_t n, F f) {
  if (sizes.count == 0) return f(0, n, ImageSize{});
  for (int64_t i = 0, end; i < n; i = end) {
    const int64_t image = sizes.count == 1 ? 0 : (at + i) / rows;
    end = sizes.count == 1 ? n : std::min(n, (image + 1) * rows - at);
    f(i, end - i, ImageSize{true, sizes.sides[2 * image], sizes.sides[2 * image + 1]});
  }
}

int64_t rows_of_image(const ImageSizes& sizes, const Boxes& boxes) {
  return boxes.batch * boxes.count / std::max<int64_t>(sizes.count, 1);
}

using Yes = std::true_type;
using No = std::false_type;

// Calls f with two choices as compile-time constants.
template <class F>
void with_flags(bool first, bool second, F&& f) {
  if (first) return second ? f(Yes(), Yes()) : f(Yes(), No());
  return second ? f(No(), Yes()) : f(No(), No());
}

// Calls f with the coding as a compile-time constant (f's argument, called, gives it).
template <class F>
void with_coding(Coding coding, F&& f) {
  switch (coding) {
    case Coding::kRCNN: return f(std::integral_constant<Coding, Coding::kRCNN>());
    case Coding::kYOLOv1: return f(std::integral_constant<Coding, Coding::kYOLOv1>());
    case Coding::kYOLOv2:
    case Coding::kYOLOv3: return f(std::integral_constant<Coding, Coding::kYOLOv2>());
  }
}

}  // namespace

void encode_boxes(const Boxes& boxes, const Boxes& anchors, const CodecOptions& o, void* deltas,
                  const Parallel& parallel) {
  with_compute_type(compute_type(boxes.dtype, anchors.dtype), [&](auto t) {
    using T = decltype(t);
    with_coding(o.coding, [&](auto coding) {
      const auto kernel = BOXOPS_BY_ISA(encode_rows<coding(), T>);
      const auto run = [&](int64_t at, int64_t n, const T* const* rows) {
        kernel(rows[0], rows[1], n, o, static_cast<T*>(deltas) + 4 * at);
      };
      for_each_rows<T>(parallel, run, boxes, anchors);
    });
  });
}

void decode_boxes(const Boxes& deltas, const Boxes& anchors, const CodecOptions& o, const ImageSizes& sizes,
                  void* boxes, const Parallel& parallel) {
  const int64_t image_rows = rows_of_image(sizes, deltas);
  with_compute_type(compute_type(deltas.dtype, anchors.dtype), [&](auto t) {
    using T = decltype(t);
    with_coding(o.coding, [&](auto coding) {
      const auto kernel = sizes.count > 0 ? BOXOPS_BY_ISA(decode_rows<coding(), true, T>)
                                          : BOXOPS_BY_ISA(decode_rows<coding(), false, T>);
      const auto run = [&](int64_t at, int64_t n, const T* const* rows) {
        by_image(sizes, image_rows, at, n, [&](int64_t i, int64_t count, const ImageSize& size) {
          kernel(rows[0] + 4 * i, rows[1] + 4 * i, count, o, size, static_cast<T*>(boxes) + 4 * (at + i));
        });
      };
      for_each_rows<T>(parallel, run, deltas, anchors);
    });
  });
}

void encode_boxes_backward(const Boxes& boxes, const Boxes& anchors, const CodecOptions& o, const Boxes& grad,
                           void* grad_boxes, void* grad_anchors, const Parallel& parallel) {
  with_compute_type(compute_type(boxes.dtype, anchors.dtype), [&](auto t) {
    using T = decltype(t);
    T *to_boxes = static_cast<T*>(grad_boxes), *to_anchors = static_cast<T*>(grad_anchors);
    with_coding(o.coding, [&](auto coding) {
      const auto kernel = to_anchors ? BOXOPS_BY_ISA(encode_gradient_rows<coding(), true, T>)
                                     : BOXOPS_BY_ISA(encode_gradient_rows<coding(), false, T>);
      const auto run = [&](int64_t at, int64_t n, const T* const* rows) {
        kernel(rows[0], rows[1], n, o, rows[2], to_boxes + 4 * at, to_anchors ? to_anchors + 4 * at : nullptr);
      };
      for_each_rows<T>(parallel, run, boxes, anchors, grad);
    });
  });
}

void decode_boxes_backward(const Boxes& deltas, const Boxes& anchors, const CodecOptions& o, const ImageSizes& sizes,
                           const Boxes& grad, void* grad_deltas, void* grad_anchors, const Parallel& parallel) {
  const int64_t image_rows = rows_of_image(sizes, deltas);
  with_compute_type(compute_type(deltas.dtype, anchors.dtype), [&](auto t) {
    using T = decltype(t);
    T *to_deltas = static_cast<T*>(grad_deltas), *to_anchors = static_cast<T*>(grad_anchors);
    with_coding(o.coding, [&](auto coding) {
      with_flags(sizes.count > 0, to_anchors != nullptr, [&](auto clips, auto of_anchors) {
        const auto kernel = BOXOPS_BY_ISA(decode_gradient_rows<coding(), clips(), of_anchors(), T>);
        const auto run = [&](int64_t at, int64_t n, const T* const* rows) {
          by_image(sizes, image_rows, at, n, [&](int64_t i, int64_t count, const ImageSize& size) {
            kernel(rows[0] + 4 * i, rows[1] + 4 * i, count, o, size, rows[2] + 4 * i, to_deltas + 4 * (at + i),
                   of_anchors() ? to_anchors + 4 * (at + i) : nullptr);
          });
        };
        for_each_rows<T>(parallel, run, deltas, anchors, grad);
      });
    });
  });
}

}  // namespace boxops::cpu
