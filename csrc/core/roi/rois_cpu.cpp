#include "roi/rois.h"

namespace boxops::cpu {

void boxes_to_rois(const Boxes* boxes, int64_t images, DType dtype, void* rois) {
  with_compute_type(dtype, [&](auto t) {
    auto* row = static_cast<decltype(t)*>(rois);
    for (int64_t image = 0; image < images; ++image)
      for (int64_t i = 0; i < boxes[image].count; ++i, row += 5) put_roi(boxes[image], i, image, row);
  });
}

}  // namespace boxops::cpu
