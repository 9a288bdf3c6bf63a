#include "masks/masks.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace boxops::cpu {
namespace {

constexpr double kByteNs = 0.2;  // the cost of a byte of an image on one core

// One mask, and where its values go in the image.
template <class T>
class Paster {
 public:
  Paster(const PasteInput& in, int64_t i, const Pasted& p)
      : in_(in),
        outside_(in.has_threshold && T(0) > static_cast<T>(in.threshold)),
        rows_(p.y1, p.y2, in.height + 2 * in.padding),
        y1_(std::max<int64_t>(p.y1, 0)),
        y2_(std::min(p.y2 + 1, in.image_height)),
        x1_(std::max<int64_t>(p.x1, 0)),
        x2_(std::min(p.x2 + 1, in.image_width)) {
    if (y1_ >= y2_ || x1_ >= x2_) return;
    const Resized<T> columns(p.x1, p.x2, in.width + 2 * in.padding);
    values_.resize(rows_.size * columns.size);
    for (int64_t y = 0; y < rows_.size; ++y)
      for (int64_t x = 0; x < columns.size; ++x) values_[y * columns.size + x] = padded_value<T>(in, i, y, x);
    row_.resize(columns.size + 1);
    low_.resize(x2_ - x1_), weight_.resize(x2_ - x1_), line_.resize(x2_ - x1_);
    for (int64_t x = x1_; x < x2_; ++x) low_[x - x1_] = static_cast<int32_t>(columns.low(x, &weight_[x - x1_]));
  }

  // Writes row y of the image.
  void write(int64_t y, void* image) {
    const int64_t bytes = in_.has_threshold ? 1 : size_of(in_.dtype);
    char* out = static_cast<char*>(image) + y * in_.image_width * bytes;
    if (y < y1_ || y >= y2_ || x1_ >= x2_) {
      memset(out, outside_, in_.image_width * bytes);
      return;
    }
    memset(out, outside_, x1_ * bytes);
    memset(out + x2_ * bytes, outside_, (in_.image_width - x2_) * bytes);
    out += x1_ * bytes;
    const int64_t size = static_cast<int64_t>(row_.size()) - 1, n = x2_ - x1_;
    T weight;
    const int64_t low = rows_.low(y, &weight), high = std::min(low + 1, rows_.size - 1);
    const T *a = values_.data() + low * size, *b = values_.data() + high * size;
    for (int64_t x = 0; x < size; ++x) row_[x] = blend(a[x], b[x], weight);
    row_[size] = row_[size - 1];
    const bool own_type = in_.dtype == dtype_of<T>();
    T* line = own_type && !in_.has_threshold ? reinterpret_cast<T*>(out) : line_.data();
    for (int64_t x = 0; x < n; ++x) line[x] = blend(row_[low_[x]], row_[low_[x] + 1], weight_[x]);
    if (in_.has_threshold) {
      const T threshold = static_cast<T>(in_.threshold);
      for (int64_t x = 0; x < n; ++x) out[x] = line[x] > threshold;
    } else if (!own_type) {
      for (int64_t x = 0; x < n; ++x) store(out, in_.dtype, x, line[x]);
    }
  }

 private:
  const PasteInput& in_;
  int outside_;  // every byte of what the mask does not cover
  Resized<T> rows_;
  int64_t y1_, y2_, x1_, x2_;  // what of it the image shows
  std::vector<T> values_, row_, weight_, line_;
  std::vector<int32_t> low_;
};

// Elements of one row, as bytes.
struct Row {
  const char* data;
  int64_t element;
  uint64_t bits;

  bool any(int64_t begin, int64_t end) const { return first(begin, end) < end; }

  bool at(int64_t x) const {
    uint64_t v = 0;
    memcpy(&v, data + x * element, element);
    return (v & bits) != 0;
  }

  bool all_zero(const char* p) const {  // 64 bytes
    uint64_t words[8], any = 0;
    memcpy(words, p, sizeof(words));
    for (const uint64_t w : words) any |= w;
    return (any & bits) == 0;
  }

  // The 8 bytes from x on: where a machine is little-endian, the first element has the lowest bits.
  uint64_t word(int64_t x) const {
    uint64_t w;
    memcpy(&w, data + x * element, sizeof(w));
    return w & bits;
  }

  // The first element in [begin, end) that is not zero, else end.
  int64_t first(int64_t begin, int64_t end) const {
    const int64_t step = 8 / element;
    int64_t x = begin;
    while (x + 8 * step <= end && all_zero(data + x * element)) x += 8 * step;
    for (; x + step <= end; x += step)
      if (const uint64_t w = word(x)) return x + __builtin_ctzll(w) / (8 * element);
    while (x < end && !at(x)) ++x;
    return x;
  }

  // The last element in [begin, end) that is not zero, else begin - 1.
  int64_t last(int64_t begin, int64_t end) const {
    const int64_t step = 8 / element;
    int64_t x = end;
    while (x - 8 * step >= begin && all_zero(data + (x - 8 * step) * element)) x -= 8 * step;
    for (; x - step >= begin; x -= step)
      if (const uint64_t w = word(x - step)) return x - 1 - __builtin_clzll(w) / (8 * element);
    while (x > begin && !at(x - 1)) --x;
    return x - 1;
  }
};

// Rows above and below the box are read whole, of the others what lies left and right of the box so far.
void box_around(const MaskBytes& masks, int64_t i, float* box) {
  const int64_t element = size_of(masks.dtype), w = masks.width, h = masks.height;
  const auto row = [&](int64_t y) {
    return Row{static_cast<const char*>(masks.data) + (i * h + y) * w * element, element, truth_bits(masks.dtype)};
  };
  std::fill_n(box, 4, 0.0f);
  int64_t y1 = 0, y2 = h - 1, x1 = w, x2 = -1;
  while (y1 < h && (x1 = row(y1).first(0, w)) == w) ++y1;
  if (y1 >= h) return;
  x2 = row(y1).last(x1, w);
  while (y2 > y1 && !row(y2).any(0, w)) --y2;
  for (int64_t y = y1 + 1; y <= y2; ++y) x1 = row(y).first(0, x1), x2 = row(y).last(x2 + 1, w);
  box[0] = static_cast<float>(x1), box[1] = static_cast<float>(y1);
  box[2] = static_cast<float>(x2), box[3] = static_cast<float>(y2);
}

}  // namespace

void paste_masks(const PasteInput& input, void* out, const Parallel& parallel) {
  with_compute_type(input.dtype, [&](auto t) {
    using T = decltype(t);
    const int64_t bytes = input.has_threshold ? 1 : size_of(input.dtype);
    const int64_t height = input.image_height, image = height * input.image_width * bytes;
    if (image == 0) return;
    parallel.share(input.boxes.count * height, kByteNs * input.image_width * bytes, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t i = begin / height, stop = std::min(end, (i + 1) * height);
        Paster<T> paster(input, i, pasted(input, i));
        for (; begin < stop; ++begin) paster.write(begin - i * height, static_cast<char*>(out) + i * image);
      }
    });
  });
}

void masks_to_boxes(const MaskBytes& masks, float* boxes, const Parallel& parallel) {
  parallel.share(masks.count, kByteNs * masks.height * masks.width * size_of(masks.dtype),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) box_around(masks, i, boxes + 4 * i);
                 });
}

}  // namespace boxops::cpu
