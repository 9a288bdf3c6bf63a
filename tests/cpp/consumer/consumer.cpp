// A C++ program on an installed boxops: the kernels on raw pointers.
#include <cstdio>

#include <boxops/iou.h>
#include <boxops/nms.h>
#include <boxops/ops.h>

int main() {
  const float boxes[] = {0, 0, 10, 10, 0, 0, 10, 5, 20, 20, 30, 30}, scores[] = {0.5f, 0.9f, 0.7f};
  const boxops::Boxes view{boxes, boxops::DType::kFloat32, boxops::Format::kXYXY, 1, 3, 0, 4, 1};
  float iou[9];
  boxops::cpu::iou(view, view, {boxops::Measure::kIoU, false, 0, 0}, iou, boxops::Serial());
  int64_t keep[3];
  const boxops::NmsInput input{view, {scores, boxops::DType::kFloat32, 0, 1}, false, {}};
  const int64_t kept = boxops::cpu::nms<float>(input, 0.4f, keep, boxops::Serial());
  std::printf("iou %g, kept %d: %d %d; %s\n", iou[1], int(kept), int(keep[0]), int(keep[1]),
              boxops::ops::build_info().c_str());
}
