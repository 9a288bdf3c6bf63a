#include <boxops/masks.h>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {

Array paste_masks(Framework& framework, Array masks, Array boxes, int64_t height, int64_t width, int64_t padding,
                  std::optional<double> threshold) {
  const Call call("paste_masks", framework, masks.device);
  check_floating(call, "masks", masks);
  const int rank = masks.rank();
  if ((rank != 3 && rank != 4) || (rank == 4 && masks.sizes[1] != 1))
    call.fail("masks of shape [N, M, M] or [N, 1, M, M]", to_string(masks.sizes));
  if (masks.sizes[-1] == 0 || masks.sizes[-2] == 0) call.fail("masks of one pixel at least", to_string(masks.sizes));
  check_boxes(call, "boxes", boxes, "[N, 4]");
  check_shape(call, "boxes", boxes, {masks.sizes[0], 4});
  check_device(call, "boxes", boxes, "masks");
  constexpr int64_t kMost = int64_t(1) << 31;
  if (height < 0 || width < 0 || height > kMost || width > kMost)
    call.fail("image_size = (height, width), both in 0..2^31",
              "(" + std::to_string(height) + ", " + std::to_string(width) + ")");
  if (padding < 0 || padding > 1024) call.fail("padding in 0..1024", std::to_string(padding));
  if (threshold) check_number(call, "threshold", *threshold);
  const PasteInput input{masks.data,
                         masks.dtype,
                         masks.sizes[-2],
                         masks.sizes[-1],
                         masks.strides[0],
                         masks.strides[-2],
                         masks.strides[-1],
                         boxes_of(boxes),
                         padding,
                         height,
                         width,
                         threshold.has_value(),
                         threshold.value_or(0.0)};
  Dims sizes = masks.sizes.head(2);
  sizes.push_back(height), sizes.push_back(width);
  Array out = framework.empty(sizes, threshold ? DType::kBool : masks.dtype, masks.device);
  call.run([&](const Parallel& parallel) { cpu::paste_masks(input, out.data, parallel); },
           [&](auto stream) { return cuda::paste_masks(input, out.data, stream); });
  return out;
}
BOXOPS_OP(paste_masks, "masks", "boxes", "height", "width", "padding", "threshold");

Array masks_to_boxes(Framework& framework, Array masks) {
  const Call call("masks_to_boxes", framework, masks.device);
  if (masks.dtype != DType::kBool) check_numeric(call, "masks", masks);
  check_shape(call, "masks", masks, {-1, -1, -1}, "[N, H, W]");
  masks = contiguous(call, masks);
  const MaskBytes input{masks.data, masks.dtype, masks.sizes[0], masks.sizes[1], masks.sizes[2]};
  Array boxes = call.empty({masks.sizes[0], 4}, DType::kFloat32);
  call.run([&](const Parallel& parallel) { cpu::masks_to_boxes(input, boxes.as<float>(), parallel); },
           [&](auto stream) {
             return cuda::masks_to_boxes(input, boxes.as<float>(),
                                         call.workspace(cuda::masks_to_boxes_workspace(input.count)).data, stream);
           });
  return boxes;
}
BOXOPS_OP(masks_to_boxes, "masks");

}  // namespace boxops::ops
