// The vector loops of codec_cpu.cpp; compiled once per instruction set (common/isa.h).
// Rows of boxes are arrays [n, 4], as they lie in memory.
namespace boxops::BOXOPS_ISA {

template <Coding coding, class T>
void encode_rows(const T* __restrict__ boxes, const T* __restrict__ anchors, int64_t n, CodecOptions o,
                 T* __restrict__ out) {
  o.coding = coding;
  for (int64_t i = 0; i < n; ++i) set_row(out, i, encode_box(row(boxes, i), row(anchors, i), o));
}

template <Coding coding, bool clips, class T>
void decode_rows(const T* __restrict__ deltas, const T* __restrict__ anchors, int64_t n, CodecOptions o, ImageSize size,
                 T* __restrict__ out) {
  o.coding = coding;
  const T height = static_cast<T>(size.height), width = static_cast<T>(size.width);
  for (int64_t i = 0; i < n; ++i) {
    const Box<T> b = decode_box(row(deltas, i), row(anchors, i), o);
    set_row(out, i, clips ? clip_box(b, height, width) : b);
  }
}

template <Coding coding, bool of_anchors, class T>
void encode_gradient_rows(const T* __restrict__ boxes, const T* __restrict__ anchors, int64_t n, CodecOptions o,
                          const T* __restrict__ grad, T* __restrict__ grad_boxes, T* __restrict__ grad_anchors) {
  o.coding = coding;
  for (int64_t i = 0; i < n; ++i) {
    const CodecGradient<T> g = encode_gradient(row(boxes, i), row(anchors, i), o, row(grad, i));
    set_row(grad_boxes, i, g.self);
    if (of_anchors) set_row(grad_anchors, i, g.anchor);
  }
}

template <Coding coding, bool clips, bool of_anchors, class T>
void decode_gradient_rows(const T* __restrict__ deltas, const T* __restrict__ anchors, int64_t n, CodecOptions o,
                          ImageSize size, const T* __restrict__ grad, T* __restrict__ grad_deltas,
                          T* __restrict__ grad_anchors) {
  o.coding = coding, size.clips = clips;
  for (int64_t i = 0; i < n; ++i) {
    const CodecGradient<T> g = decode_gradient(row(deltas, i), row(anchors, i), o, size, row(grad, i));
    set_row(grad_deltas, i, g.self);
    if (of_anchors) set_row(grad_anchors, i, g.anchor);
  }
}

}  // namespace boxops::BOXOPS_ISA
