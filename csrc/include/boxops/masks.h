// Masks: pasting the small masks of a mask head into the image (He et al. 2017, section 3.1), and boxes around masks.
//
// paste_masks is torchvision's paste_masks_in_image in one pass: a mask is padded with zeros, its box grows about its
// centre by the factor (width + 2 padding) / width and is truncated to integers, the mask is resized to the box
// bilinearly (align_corners = False), and everything outside is 0. Boxes compute in their own compute type, masks in
// theirs; rows are interpolated before columns. With a threshold, the result says where the mask in its compute type
// exceeds it. Coordinates beyond 2^30 count as 2^30; a box with a NaN pastes nothing.
// Floor: the bytes of the output.
//
// masks_to_boxes gives the least and greatest x and y of what is not zero (NaN is not), 0 0 0 0 for an empty mask.
// Floor: on the CPU the bytes outside of the boxes, on the device the bytes of the masks.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

struct PasteInput {
  const void* masks;  // [N, height, width], floating
  DType dtype;
  int64_t height, width, mask_stride, row_stride, column_stride;
  Boxes boxes;  // [1, N, 4]
  int64_t padding, image_height, image_width;
  bool has_threshold;
  double threshold;
};

// [N, H, W], contiguous.
struct MaskBytes {
  const void* data;
  DType dtype;
  int64_t count, height, width;
};

namespace cpu {

// out: [N, image_height, image_width] of the masks' dtype, of bool with a threshold.
BOXOPS_API void paste_masks(const PasteInput& input, void* out, const Parallel& parallel);

BOXOPS_API void masks_to_boxes(const MaskBytes& masks, float* boxes, const Parallel& parallel);

}  // namespace cpu

namespace cuda {

BOXOPS_API int paste_masks(const PasteInput& input, void* out, void* stream);

BOXOPS_API size_t masks_to_boxes_workspace(int64_t count);
BOXOPS_API int masks_to_boxes(const MaskBytes& masks, float* boxes, void* workspace, void* stream);

}  // namespace cuda

}  // namespace boxops
