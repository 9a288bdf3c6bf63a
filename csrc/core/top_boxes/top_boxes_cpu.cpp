#include "top_boxes/top_boxes.h"

namespace boxops::cpu {

int64_t top_boxes(const Boxes& boxes, const Scalars& scores, double min_score, TopMethod method, int64_t* kept,
                  void* values) {
  return with_compute_type(compute_type(boxes.dtype, scores.dtype), [&](auto t) {
    using T = decltype(t);
    const Worth<T> worth{boxes, scores, method};
    int64_t count = 0;
    for (int64_t i = 0; i < boxes.count; ++i) {
      const T value = worth(i);
      kept[count] = i, static_cast<T*>(values)[count] = value;
      count += value > static_cast<T>(min_score);
    }
    return count;
  });
}

}  // namespace boxops::cpu
