// The checks of all ops, the words of their errors, and views of arrays for the kernels.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <boxops/array.h>
#include <boxops/nms.h>
#include <boxops/ragged.h>
#include <boxops/types.h>
#include "ops/call.h"

namespace boxops {

std::string to_string(const Dims& sizes);  // "[3, 4]"
std::string to_string(double value);       // "0.5"
std::string to_string(Device device);      // "cuda:0"

void check_numeric(const Call& call, const char* name, const Array& a);
void check_number_or_bool(const Call& call, const char* name, const Array& a);
void check_floating(const Call& call, const char* name, const Array& a);
// The array's sizes are `shape`, with -1 for any.
void check_shape(const Call& call, const char* name, const Array& a, const Dims& shape, const char* words);
void check_shape(const Call& call, const char* name, const Array& a, const Dims& shape);
// On the device of the call, which is that of `of`.
void check_device(const Call& call, const char* name, const Array& a, const char* of);
// boxes: numeric, with the last dim and, where `shape` starts without an ellipsis, the rank that it shows.
void check_boxes(const Call& call, const char* name, const Array& boxes, const char* shape);
// One number per box, on the same device.
void check_per_box(const Call& call, const char* name, const Array& a, const Array& boxes);
// The same for group ids and labels, which may be bools, and if floating must be whole.
void check_ids(const Call& call, const char* name, const Array& a, const Array& boxes);
// No value of [N] or [B, N] is a fraction, NaN or infinite. Looked at on the CPU only: a device is not waited for.
void check_whole(const Call& call, const char* name, const Array& a);
void check_one_device(const Call& call, const Array& boxes1, const Array& boxes2);
// Integers [B + 1] on the device of `rows`, rising from 0 to its number of rows; the values are looked at on the CPU
// only. `offsets` becomes contiguous int64 and must outlive the result. Without offsets, one item has all rows.
Ragged check_offsets(const Call& call, const char* name, std::optional<Array>& offsets, const char* rows_name,
                     const Array& rows);
void check_number(const Call& call, const char* name, double value);  // not NaN
void check_finite(const Call& call, const char* name, double value);
void check_count(const Call& call, const char* name, int64_t value);       // >= 0
void check_weights(const Call& call, const std::vector<double>& weights);  // four, > 0 and finite
void check_iou_threshold(const Call& call, double iou_threshold);
// Gradients of a result of these sizes and dtype.
void check_gradient(const Call& call, const Array& grad, const Dims& sizes, DType dtype);

// The input of an NMS: boxes of this shape, a score for each, and perhaps the group that it competes in.
NmsInput check_nms(const Call& call, const Array& boxes, const char* shape, const Array& scores,
                   const std::optional<Array>& idxs, double iou_threshold);

// The leading dims of both arrays, all but the last `drop`, broadcast.
Dims broadcast(const Call& call, const Array& boxes1, const Array& boxes2, int drop);

// `array` itself, or a contiguous copy with the same sizes.
Array contiguous(const Call& call, const Array& array);

// `array`, of an integer type, itself if it is int64, or a contiguous copy as int64: what kernels read indices from.
Array indices_of(const Call& call, const char* name, const Array& array);

// [lead..., N, 4] as [B, N, 4], or with `fold` [lead..., 4] as [1, N, 4], broadcast to `lead`. Where the
// strides allow no such view, `boxes` becomes a copy.
Boxes view_boxes(const Call& call, Array& boxes, const Dims& lead, bool fold, Format format);

}  // namespace boxops
