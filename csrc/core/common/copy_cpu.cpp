#include "common/copy.h"

namespace boxops::cpu {

void copy(const StridedView& from, int64_t numel, void* out, const Parallel& parallel) {
  constexpr double kElementNs = 4;  // the cost of an element on one core
  parallel.share(numel, kElementNs, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) copy_element(from, out, i);
  });
}

}  // namespace boxops::cpu
