#pragma once

#include <cstdint>

namespace cuda_emulator {

// Of the basic block whose call of __sanitizer_cov_trace_pc returns to that offset in this module.
int instructions_of_block(uint32_t offset);

}  // namespace cuda_emulator
