// Class-wise postprocessing, the last step of R-CNN heads, SSD, RetinaNet and YOLO: of all (box, class) pairs those
// with a score above the threshold, then greedy NMS within each class, then the best of the image.
//
// Candidates are the pairs (n, c) with score > score_threshold, both in the score's compute type (NaN never is), and
// with both sides of the box >= min_size if that is asked for; of each class the per_class best. NMS (boxops/nms.h) by
// falling score; the first max_output kept go out by falling score. All ties go to the lower n * C + c. Boxes and
// scores go out as they are, bit by bit; places left over hold 0, and -1 as label. Fewer than 2^31 scores per image.
//
// Floor: the scores are read once; boxes of candidates only.
// CPU: the pass over the scores is vectorised; images go to threads.
// CUDA: candidates are collected in a list per class, so that no step sorts, or even looks at, the other pairs; then a
// block per class suppresses, and a block per image merges. Workspace: 4 bytes per score and a little.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

struct DetectInput {
  int64_t batch, count, classes;
  const void* boxes;  // [B, N, 4], or [B, N, C, 4]
  DType box_dtype;
  int64_t box_strides[4];  // of image, box, class (0 without classes) and coordinate
  const void* scores;      // [B, N, C]
  DType score_dtype;
  int64_t score_strides[3];
};

struct DetectOptions {
  double score_threshold, iou_threshold;
  int64_t max_output;
  int64_t per_class;  // negative: all
  bool has_min_size;
  double min_size;
  bool class_agnostic;  // suppress across classes
};

struct DetectOutput {
  void* boxes;      // [B, D, 4]
  void* scores;     // [B, D]
  int64_t* labels;  // [B, D]
  int64_t* counts;  // [B]
};

namespace cpu {

BOXOPS_API void detect(const DetectInput& input, const DetectOptions& options, const DetectOutput& output,
                       const Parallel& parallel);

}  // namespace cpu

namespace cuda {

BOXOPS_API size_t detect_workspace(const DetectInput& input, const DetectOptions& options);

// Returns a cudaError_t.
BOXOPS_API int detect(const DetectInput& input, const DetectOptions& options, const DetectOutput& output,
                      void* workspace, void* stream);

}  // namespace cuda

}  // namespace boxops
