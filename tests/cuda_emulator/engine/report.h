// Reports. A fault ends the launch: the report goes to stderr, the launch returns
// cudaErrorLaunchFailure, and cudaGetErrorString gives the report.
#pragma once

#include <string>

#include "engine/engine.h"

namespace cuda_emulator {

std::string format(const char* text, ...) __attribute__((format(printf, 1, 2)));
std::string to_text(Place place);
std::string to_text(const Thread& thread);
// The source line of the call that returns to `address`.
std::string source_of(const void* address);

// Composes the report of a fault and prints it.
void report(Launch& launch, const std::string& what);
// Reports a fault of the current thread and abandons its block.
[[noreturn]] void fail(const std::string& what);

}  // namespace cuda_emulator
