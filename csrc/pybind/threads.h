// The threads of the NumPy binding: BOXOPS_NUM_THREADS of them, by default one per core.
#pragma once

#include <boxops/parallel.h>

namespace boxops::numpy {

const Parallel& own_threads();
void set_num_threads(int64_t n);
int64_t num_threads();

}  // namespace boxops::numpy
