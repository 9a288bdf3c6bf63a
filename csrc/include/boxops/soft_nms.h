// Soft non-maximum suppression: overlap lowers scores instead of striking boxes (Bodla et al. 2017, section 3).
//
// Again and again the box of largest current score is taken (ties: lower index), and every box of its group that is
// left is decayed by its IoU with it; boxes whose score is not above score_threshold, NaN ones included, go. All is
// rounded to the compute type of boxes and scores at each step, in the order of taking, and exp is our own, so
// every backend takes the same boxes and gives the same scores to the bit. Degenerate, NaN and infinite boxes have IoU
// 0 with everything.
//
// Floor: 30 operations or so per pair of boxes that overlap. CPU: boxes lie in tiles by place, and only tiles whose
// hull meets the box taken are looked at. CUDA: boxes that decay each other, at once or by way of others, are
// a block's work; workspace O(N).
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/nms.h>
#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

enum class SoftNmsMethod : uint8_t { kLinear, kGaussian };
template <>
inline constexpr std::array<const char*, 2> kNames<SoftNmsMethod> = {"linear", "gaussian"};

struct SoftNmsOptions {
  double iou_threshold;  // linear: smaller IoUs do nothing
  SoftNmsMethod method;
  double sigma;            // gaussian; > 0
  double score_threshold;  // boxes with score > score_threshold stay
};

namespace cpu {

// Writes the taken indices and their scores in the order of taking to kept[N] and kept_scores[N]; returns their number.
BOXOPS_API int64_t soft_nms(const NmsInput& input, const SoftNmsOptions& options, int64_t* kept, void* kept_scores,
                            const Parallel& parallel);

}  // namespace cpu

namespace cuda {

BOXOPS_API size_t soft_nms_workspace(const NmsInput& input);

// The same, with the number left in count[1] on the device. Returns a cudaError_t.
BOXOPS_API int soft_nms(const NmsInput& input, const SoftNmsOptions& options, int64_t* kept, void* kept_scores,
                        int64_t* count, void* workspace, void* stream);

}  // namespace cuda

}  // namespace boxops
