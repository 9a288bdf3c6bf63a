// Race detection, of builds that report every memory access of a kernel (tsan_hooks.cpp).
//
// Two accesses to one byte race when they come from two threads, one of them writes, not both are
// atomic, and nothing orders them: neither a barrier of their block, nor a __syncwarp of both, nor
// an atomic that one thread performs after a fence and another performs later.
//
// A thread's accesses between two such events form an interval. Intervals are numbered as they
// begin, over all launches; a byte's shadow remembers the intervals of its last accesses. So
// "before this launch" and "before this block" are comparisons of two numbers, and shadow memory
// is never cleared.
#pragma once

#include <cstddef>

#include "engine/engine.h"

namespace cuda_emulator::race {

enum class Kind { kRead, kWrite, kAtomic };

void begin_launch();
void begin_block();
void block_barrier();
void warp_barrier(unsigned warp, unsigned lanes);
void fence();
// `caller` is the return address that tells the source line.
void access(const void* address, size_t size, Kind kind, const void* caller);

}  // namespace cuda_emulator::race
