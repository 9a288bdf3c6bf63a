// The boxes that count for more than a threshold, with what they count for.
//
// boxes [1, N, 4] corners, scores [1, N]: any dtype and strides. A box counts for its score, or for its score times
// its area, each step rounded to the compute type of both; so is the threshold. NaN is never above it.
//
// Floor: the bytes read over the memory bandwidth.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

enum class TopMethod : uint8_t { kScore, kArea };
template <>
inline constexpr std::array<const char*, 2> kNames<TopMethod> = {"score", "area"};

namespace cpu {

// Writes the indices, rising, of the boxes above min_score to kept[N] and their values to values[N]; returns how many.
BOXOPS_API int64_t top_boxes(const Boxes& boxes, const Scalars& scores, double min_score, TopMethod method,
                             int64_t* kept, void* values);

}  // namespace cpu

namespace cuda {

BOXOPS_API size_t top_boxes_workspace(int64_t count);

// The same, with the number left in count[1] on the device. `workspace` holds top_boxes_workspace(boxes.count) bytes.
BOXOPS_API int top_boxes(const Boxes& boxes, const Scalars& scores, double min_score, TopMethod method, int64_t* kept,
                         void* values, int64_t* count, void* workspace, void* stream);

}  // namespace cuda

}  // namespace boxops
