#include "ops/check.h"

#include <cmath>
#include <cstdio>

#include <boxops/ops.h>
#include "common/copy.h"
#include "common/isa.h"

namespace boxops {

std::string to_string(const Dims& sizes) {
  std::string s = "[";
  for (int i = 0; i < sizes.count; ++i) s += (i ? ", " : "") + std::to_string(sizes[i]);
  return s + "]";
}

std::string to_string(double value) {
  if (std::isnan(value)) return "nan";  // whatever its sign
  char text[32];
  const bool whole = std::fabs(value) < 1e15 && std::trunc(value) == value;
  std::snprintf(text, sizeof(text), whole ? "%.0f" : "%g", value);
  return text;
}

std::string to_string(Device device) {
  return device.type == DeviceType::kCPU ? "cpu" : "cuda:" + std::to_string(device.index);
}

static void check_numeric(const Call& call, const char* name, const Array& a, DType dtype) {
  if (a.rank() > kMaxRank)
    call.fail("arrays of at most " + std::to_string(kMaxRank) + " dims", std::to_string(a.rank()));
  if (!is_integer(dtype) && !is_floating(dtype))
    call.fail(std::string(name) + " of a real number type", name_of(dtype));
}

void check_numeric(const Call& call, const char* name, const Array& a) { check_numeric(call, name, a, a.dtype); }

void check_number_or_bool(const Call& call, const char* name, const Array& a) {
  check_numeric(call, name, a, number_type(a.dtype));
}

void check_floating(const Call& call, const char* name, const Array& a) {
  check_numeric(call, name, a);
  if (!is_floating(a.dtype)) call.fail(std::string(name) + " of a floating type", name_of(a.dtype));
}

void check_shape(const Call& call, const char* name, const Array& a, const Dims& shape, const char* words) {
  bool right = a.rank() == shape.count;
  for (int i = 0; right && i < shape.count; ++i) right = shape[i] == -1 || a.sizes[i] == shape[i];
  if (!right) call.fail(std::string(name) + " of shape " + words, to_string(a.sizes));
}

void check_shape(const Call& call, const char* name, const Array& a, const Dims& shape) {
  check_shape(call, name, a, shape, to_string(shape).c_str());
}

void check_device(const Call& call, const char* name, const Array& a, const char* of) {
  if (!(a.device == call.device()))
    call.fail(std::string(name) + " on the device of " + of + " (" + to_string(call.device()) + ")",
              to_string(a.device));
}

Ragged check_offsets(const Call& call, const char* name, std::optional<Array>& offsets, const char* rows_name,
                     const Array& rows) {
  const int64_t total = rows.sizes[0];
  if (!offsets) return {nullptr, 1, total};
  if (offsets->rank() != 1 || offsets->sizes[0] < 1)
    call.fail(std::string(name) + " of shape [B + 1]", to_string(offsets->sizes));
  check_device(call, name, *offsets, rows_name);
  offsets = contiguous(call, indices_of(call, name, *offsets));
  const Ragged ragged{offsets->as<int64_t>(), offsets->sizes[0] - 1, total};
  if (call.on_cpu()) {
    for (int64_t b = 0; b < ragged.batch; ++b)
      if (ragged.offsets[b + 1] < ragged.offsets[b])
        call.fail(std::string(name) + " that never fall", std::to_string(ragged.offsets[b + 1]) + " after " +
                                                              std::to_string(ragged.offsets[b]) + " at " +
                                                              std::to_string(b + 1));
    if (ragged.offsets[0] != 0 || ragged.offsets[ragged.batch] != total)
      call.fail(std::string(name) + " from 0 to " + std::to_string(total) + ", the number of " + rows_name,
                std::to_string(ragged.offsets[0]) + " to " + std::to_string(ragged.offsets[ragged.batch]));
  }
  return ragged;
}

void check_boxes(const Call& call, const char* name, const Array& boxes, const char* shape) {
  check_numeric(call, name, boxes);
  const bool any_lead = shape[1] == '.';
  int rank = 1;
  const char* end = shape;
  for (; *end != ']'; ++end) rank += *end == ',';
  const int64_t numbers = end[-1] - '0';
  const bool right = any_lead ? boxes.rank() >= rank - 1 : boxes.rank() == rank;
  if (!right || boxes.sizes[-1] != numbers) call.fail(std::string(name) + " of shape " + shape, to_string(boxes.sizes));
}

void check_per_box(const Call& call, const char* name, const Array& a, const Array& boxes) {
  check_numeric(call, name, a);
  const Dims expected = boxes.sizes.head(1);
  if (!(a.sizes == expected)) call.fail(std::string(name) + " of shape " + to_string(expected), to_string(a.sizes));
  check_device(call, name, a, "boxes");
}

void check_ids(const Call& call, const char* name, const Array& a, const Array& boxes) {
  Array numbers = a;
  numbers.dtype = number_type(a.dtype);
  check_per_box(call, name, numbers, boxes);
  check_whole(call, name, numbers);
}

void check_whole(const Call& call, const char* name, const Array& a) {
  if (!is_floating(a.dtype) || !call.on_cpu()) return;
  const Scalars view = scalars_of(a);
  const int64_t rows = a.rank() > 1 ? a.sizes[0] : 1;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < a.sizes[-1]; ++i) {
      const double value = load<double>(view.data, view.dtype, row * view.batch_stride + i * view.stride);
      if (std::isfinite(value) && std::trunc(value) == value) continue;
      call.fail(std::string(name) + " that are whole numbers",
                to_string(value) + " at " + (a.rank() > 1 ? to_string(Dims{row, i}) : std::to_string(i)));
    }
}

void check_one_device(const Call& call, const Array& boxes1, const Array& boxes2) {
  if (!(boxes1.device == boxes2.device))
    call.fail("boxes1 and boxes2 on one device", to_string(boxes1.device) + " and " + to_string(boxes2.device));
}

void check_number(const Call& call, const char* name, double value) {
  if (std::isnan(value)) call.fail(std::string("a number for ") + name, "nan");
}

void check_finite(const Call& call, const char* name, double value) {
  if (!std::isfinite(value)) call.fail(std::string("a finite ") + name, to_string(value));
}

void check_count(const Call& call, const char* name, int64_t value) {
  if (value < 0) call.fail(std::string(name) + " >= 0", std::to_string(value));
}

void check_gradient(const Call& call, const Array& grad, const Dims& sizes, DType dtype) {
  if (!(grad.sizes == sizes)) call.fail("a gradient of shape " + to_string(sizes), to_string(grad.sizes));
  if (grad.dtype != dtype) call.fail(std::string("a gradient of dtype ") + name_of(dtype), name_of(grad.dtype));
  if (!(grad.device == call.device())) call.fail("a gradient on " + to_string(call.device()), to_string(grad.device));
}

void check_weights(const Call& call, const std::vector<double>& weights) {
  if (weights.size() != 4) call.fail("4 weights", std::to_string(weights.size()));
  for (const double weight : weights)
    if (!(weight > 0) || std::isinf(weight)) call.fail("weights > 0 and finite", to_string(weight));
}

void check_iou_threshold(const Call& call, double iou_threshold) {
  if (!(iou_threshold >= 0)) call.fail("iou_threshold >= 0", to_string(iou_threshold));
}

NmsInput check_nms(const Call& call, const Array& boxes, const char* shape, const Array& scores,
                   const std::optional<Array>& idxs, double iou_threshold) {
  check_boxes(call, "boxes", boxes, shape);
  check_per_box(call, "scores", scores, boxes);
  if (idxs) check_ids(call, "idxs", *idxs, boxes);
  check_iou_threshold(call, iou_threshold);
  return {boxes_of(boxes), scalars_of(scores), idxs.has_value(), idxs ? scalars_of(*idxs) : Scalars{}};
}

Dims broadcast(const Call& call, const Array& boxes1, const Array& boxes2, int drop) {
  const Dims a = boxes1.sizes.head(drop), b = boxes2.sizes.head(drop);
  Dims out;
  for (int i = std::max(a.count, b.count); i > 0; --i) {
    const int64_t m = i <= a.count ? a[-i] : 1, n = i <= b.count ? b[-i] : 1;
    if (m != n && m != 1 && n != 1)
      call.fail("leading dims that broadcast", to_string(boxes1.sizes) + " and " + to_string(boxes2.sizes));
    out.push_back(m == 1 ? n : m);
  }
  return out;
}

static StridedView view_strided(const Array& array) {
  StridedView view{array.data, size_of(array.dtype), array.rank(), {}, {}};
  for (int i = 0; i < array.rank(); ++i) view.sizes[i] = array.sizes[i], view.strides[i] = array.strides[i];
  return view;
}

Array contiguous(const Call& call, const Array& array) {
  bool is_contiguous = true;
  int64_t stride = 1;
  for (int i = array.rank() - 1; i >= 0; --i) {
    is_contiguous &= array.sizes[i] == 1 || array.strides[i] == stride;
    stride *= array.sizes[i];
  }
  if (is_contiguous || stride == 0) return array;
  Array out = call.empty(array.sizes, array.dtype);
  const StridedView view = view_strided(array);
  call.run([&](const Parallel& parallel) { cpu::copy(view, stride, out.data, parallel); },
           [&](auto stream) { return cuda::copy(view, stride, out.data, stream); });
  return out;
}

Array indices_of(const Call& call, const char* name, const Array& array) {
  if (array.dtype == DType::kInt64) return array;
  check_numeric(call, name, array);
  if (!is_integer(array.dtype)) call.fail(std::string(name) + " of an integer type", name_of(array.dtype));
  Array out = call.empty(array.sizes, DType::kInt64);
  const int64_t numel = array.numel();
  if (numel == 0) return out;
  const StridedView view = view_strided(array);
  auto* indices = out.as<int64_t>();
  call.run([&](const Parallel& parallel) { cpu::copy_indices(view, array.dtype, numel, indices, parallel); },
           [&](auto stream) { return cuda::copy_indices(view, array.dtype, numel, indices, stream); });
  return out;
}

// The one stride that walks dims [0, count) in row-major order; false if there is none.
static bool fold_stride(const Array& a, int count, int64_t* stride) {
  *stride = 0;
  int64_t next = -1;  // the stride that the next outer dim must have; -1: any
  for (int i = count - 1; i >= 0; --i) {
    if (a.sizes[i] == 1) continue;
    if (next == -1) *stride = a.strides[i];
    else if (a.strides[i] != next) return false;
    next = a.strides[i] * a.sizes[i];
    if (next == -1) return false;  // a real stride of -1; rare enough to copy
  }
  return true;
}

Boxes view_boxes(const Call& call, Array& boxes, const Dims& lead, bool fold, Format format) {
  const int inner = fold ? 1 : 2;
  if (boxes.rank() == 2 && boxes.sizes.head(inner) == lead) return boxes_of(boxes, format);  // the usual, soonest
  Array wide = boxes;
  wide.sizes = lead, wide.strides = {};
  const int missing = lead.count - (boxes.rank() - inner);
  for (int i = 0; i < lead.count; ++i)
    wide.strides.push_back(i < missing || (boxes.sizes[i - missing] == 1 && lead[i] != 1) ? 0
                                                                                          : boxes.strides[i - missing]);
  for (int i = inner; i > 0; --i) wide.sizes.push_back(boxes.sizes[-i]), wide.strides.push_back(boxes.strides[-i]);
  int64_t stride = 0;
  if (wide.numel() > 0 && !fold_stride(wide, lead.count, &stride)) {
    wide = contiguous(call, wide);
    fold_stride(wide, lead.count, &stride);
  }
  boxes = wide;
  const int64_t folded = lead.product();
  if (fold) return {wide.data, wide.dtype, format, 1, folded, 0, stride, wide.strides[-1]};
  return {wide.data, wide.dtype, format, folded, wide.sizes[-2], stride, wide.strides[-2], wide.strides[-1]};
}

std::string ops::build_info() {
  const char* names[] = {"baseline", "avx2", "avx512"};
#if BOXOPS_WITH_CUDA
  return std::string("cuda ") + BOXOPS_CUDA_ARCHS_BUILT + ", cpu " + names[static_cast<int>(isa())];
#else
  return std::string("no cuda, cpu ") + names[static_cast<int>(isa())];
#endif
}

}  // namespace boxops
