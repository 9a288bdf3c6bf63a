#pragma once

#include <boxops/portability.h>

#include <cstdint>

namespace boxops {

// How many blocks hold n.
BOXOPS_HD int64_t blocks_of(int64_t n, int64_t block) { return (n + block - 1) / block; }

}  // namespace boxops
