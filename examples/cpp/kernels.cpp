// The kernels on raw pointers, on the CPU.
#include <boxops/iou.h>
#include <boxops/nms.h>
#include <boxops/threads.h>
#include <boxops/version.h>

#include <cstdio>

int main() {
  const float corners[] = {0, 0, 10, 10, 0, 0, 10, 5, 20, 20, 30, 30}, scores[] = {0.5f, 0.9f, 0.7f};
  const auto boxes = boxops::Boxes::contiguous(corners, 3);

  float iou[9];
  boxops::cpu::iou(boxes, boxes, {boxops::Measure::kIoU, false, 0, 0}, iou, boxops::Serial());

  int64_t keep[3];
  const boxops::NmsInput input{boxes, boxops::Scalars::contiguous(scores, 3), false, {}};
  const int64_t kept = boxops::cpu::nms(input, 0.4, keep, boxops::own_threads());

  std::printf("boxops %s: iou %g, kept %d: %d %d\n", BOXOPS_VERSION, iou[1], int(kept), int(keep[0]), int(keep[1]));
}
