#include <boxops/masks.h>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {

Array paste_masks(Framework& framework, Array masks, Array boxes, int64_t height, int64_t width, int64_t padding,
                  std::optional<double> threshold) {
  const char* op = "paste_masks";
  check_floating(op, "masks", masks);
  const int rank = masks.rank();
  if ((rank != 3 && rank != 4) || (rank == 4 && masks.sizes[1] != 1))
    fail(op, "masks of shape [N, M, M] or [N, 1, M, M]", to_string(masks.sizes));
  if (masks.sizes[-1] == 0 || masks.sizes[-2] == 0) fail(op, "masks of one pixel at least", to_string(masks.sizes));
  check_boxes(op, "boxes", boxes, "[N, 4]");
  const Dims expected{masks.sizes[0], 4};
  check_shape(op, "boxes", boxes, expected, to_string(expected).c_str());
  check_device(op, "boxes", boxes, "masks", masks);
  constexpr int64_t kMost = int64_t(1) << 31;
  if (height < 0 || width < 0 || height > kMost || width > kMost)
    fail(op, "image_size = (height, width), both in 0..2^31",
         "(" + std::to_string(height) + ", " + std::to_string(width) + ")");
  if (padding < 0 || padding > 1024) fail(op, "padding in 0..1024", std::to_string(padding));
  if (threshold) check_number(op, "threshold", *threshold);
  const PasteInput input{
      masks.data,
      masks.dtype,
      masks.sizes[-2],
      masks.sizes[-1],
      masks.strides[0],
      masks.strides[-2],
      masks.strides[-1],
      {boxes.data, boxes.dtype, Format::kXYXY, 1, boxes.sizes[0], 0, boxes.strides[0], boxes.strides[1]},
      padding,
      height,
      width,
      threshold.has_value(),
      threshold.value_or(0.0)};
  Dims sizes = masks.sizes.head(2);
  sizes.push_back(height), sizes.push_back(width);
  Array out = framework.empty(sizes, threshold ? DType::kBool : masks.dtype, masks.device);
  with_compute_type(masks.dtype, [&](auto t) {
    using T = decltype(t);
    BOXOPS_DISPATCH(op, masks.device, cpu::paste_masks<T>(input, out.data, framework.parallel()),
                    cuda::paste_masks<T>(input, out.data, framework.stream(masks.device)));
  });
  return out;
}

Array masks_to_boxes(Framework& framework, Array masks) {
  const char* op = "masks_to_boxes";
  if (masks.dtype != DType::kBool) check_numeric(op, "masks", masks);
  check_shape(op, "masks", masks, {-1, -1, -1}, "[N, H, W]");
  masks = contiguous(framework, op, masks);
  const MaskBytes input{masks.data, masks.dtype, masks.sizes[0], masks.sizes[1], masks.sizes[2]};
  Array boxes = framework.empty({masks.sizes[0], 4}, DType::kFloat32, masks.device);
  BOXOPS_DISPATCH(op, masks.device, cpu::masks_to_boxes(input, boxes.as<float>(), framework.parallel()), [&] {
    const auto bytes = static_cast<int64_t>(cuda::masks_to_boxes_workspace(input.count));
    const Array workspace = framework.empty({bytes}, DType::kUInt8, masks.device);
    return cuda::masks_to_boxes(input, boxes.as<float>(), workspace.data, framework.stream(masks.device));
  }());
  return boxes;
}

}  // namespace boxops::ops
