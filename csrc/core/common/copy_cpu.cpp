#include "common/copy.h"

namespace boxops::cpu {

constexpr double kElementNs = 4;  // the cost of an element on one core

void copy(const StridedView& from, int64_t numel, void* out, const Parallel& parallel) {
  parallel.share(numel, kElementNs, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) copy_element(from, out, i);
  });
}

void copy_indices(const StridedView& from, DType dtype, int64_t numel, int64_t* out, const Parallel& parallel) {
  parallel.share(numel, kElementNs, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = load_index(from.data, dtype, source_of(from, i));
  });
}

}  // namespace boxops::cpu
