#include "l1_cost/l1_cost.h"

namespace boxops::cpu {

constexpr double kPairNs = 2;  // the cost of a pair on one core

void box_l1_cost(const Boxes& boxes1, const Boxes& boxes2, void* out, const Parallel& parallel) {
  with_compute_type(compute_type(boxes1.dtype, boxes2.dtype), [&](auto t) {
    using T = decltype(t);
    const int64_t n = boxes1.count, m = boxes2.count;
    parallel.share(boxes1.batch * n, kPairNs * static_cast<double>(m), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const Box<T> a = load_numbers<T>(boxes1, row / n, row % n);
        T* to = static_cast<T*>(out) + row * m;
        for (int64_t j = 0; j < m; ++j) to[j] = l1_cost(a, load_numbers<T>(boxes2, row / n, j));
      }
    });
  });
}

}  // namespace boxops::cpu
