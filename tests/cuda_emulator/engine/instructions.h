#pragma once

#include <cstdint>

extern "C" const char __ehdr_start[] __attribute__((visibility("hidden")));

namespace cuda_emulator {

// Where this module is loaded; addresses in it are told as offsets from there.
inline const char* const module_start = __ehdr_start;

// Of the basic block whose call of __sanitizer_cov_trace_pc returns there.
int instructions_of_block(uintptr_t offset);

}  // namespace cuda_emulator
