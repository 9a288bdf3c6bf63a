// The greedy pass of NMS over 64 boxes, by a warp.
#pragma once

#include "common/warp.cuh"

namespace boxops::cuda {
namespace {

using Word = unsigned long long;  // a bit for each box

// The `count` lowest bits, of any count.
__device__ Word lowest(int64_t count) { return count >= 64 ? ~Word(0) : count <= 0 ? 0 : (Word(1) << count) - 1; }

// Which of 64 boxes stay. A lane holds two of them, `lane` and `lane + 32`, with the bits of those before them that
// they overlap; `out` are the bits of those that are out already. In a round all boxes are settled whose overlapped
// ones are (Blelloch, Fineman, Shun, "Greedy sequential maximal independent set and matching are parallel on average",
// SPAA 2012): few rounds, and no order of memory to wait for.
__device__ Word settle(const Word (&overlapped)[2], Word out) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Word in = 0;
  while (~(in | out) != 0) {
    const bool open0 = !((in | out) >> lane & 1), open1 = !((in | out) >> (lane + 32) & 1);
    const unsigned in0 = __ballot_sync(kFullMask, open0 && !(overlapped[0] & ~out));
    const unsigned in1 = __ballot_sync(kFullMask, open1 && !(overlapped[1] & ~out));
    in |= Word(in1) << 32 | in0;
    const unsigned out0 = __ballot_sync(kFullMask, open0 && (overlapped[0] & in));
    const unsigned out1 = __ballot_sync(kFullMask, open1 && (overlapped[1] & in));
    out |= Word(out1) << 32 | out0;
  }
  return in;
}

}  // namespace
}  // namespace boxops::cuda
