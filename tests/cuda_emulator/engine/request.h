// One memory instruction of a warp, as the hardware sees it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace cuda_emulator {

// Some numbers, each once.
struct Distinct {
  uintptr_t member[64];
  int count = 0;
  void insert(uintptr_t number) {
    if (std::find(member, member + count, number) == member + count) member[count++] = number;
  }
};

struct Request {
  uintptr_t address[32];
  unsigned lanes;  // the set of those that take part
  size_t size;     // bytes of a lane, at most 16

  template <class F>
  void for_each_lane(F f) const {
    for (unsigned set = lanes; set != 0; set &= set - 1) f(address[__builtin_ctz(set)]);
  }

  // The pieces of global memory that it touches: sectors of 32 bytes are transferred, lines of 128 looked up one a
  // cycle.
  Distinct pieces(uintptr_t bytes) const {
    Distinct pieces;
    for_each_lane([&](uintptr_t a) { pieces.insert(a / bytes), pieces.insert((a + size - 1) / bytes); });
    return pieces;
  }

  // The sectors that as many bytes would be, side by side.
  int ideal_sectors() const {
    Distinct addresses;
    for_each_lane([&](uintptr_t a) { addresses.insert(a); });
    return static_cast<int>((static_cast<size_t>(addresses.count) * size + 31) / 32);
  }

  // Shared memory has 32 banks of 4-byte words; a wavefront takes a word from each bank, for any number of lanes. Of
  // lanes with 8 or 16 bytes half or a quarter of the warp goes at a time, or twice as many where every pair of lanes
  // has one address (forums.developer.nvidia.com/t/unexpected-shared-memory-bank-conflict/77228).
  int wavefronts() const {
    const int together = size <= 4 ? 32 : static_cast<int>(128 / size) * (in_pairs(1) || in_pairs(2) ? 2 : 1);
    int sum = 0;
    for (int first = 0; first < 32; first += together) {
      Distinct bank[32];
      int most = 0;
      for (int lane = first; lane < first + together; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        for (uintptr_t word = address[lane] / 4; word <= (address[lane] + size - 1) / 4; ++word) {
          bank[word % 32].insert(word);
          most = std::max(most, bank[word % 32].count);
        }
      }
      sum += most;
    }
    return sum;
  }

  // Whether lanes whose numbers differ by that bit have one address, where both take part.
  bool in_pairs(int bit) const {
    for (int lane = 0; lane < 32; ++lane)
      if ((lanes >> lane & 1) && (lanes >> (lane ^ bit) & 1) && address[lane] != address[lane ^ bit]) return false;
    return true;
  }

  // The most lanes that have one address: atomics take them one after another.
  int most_on_one_address() const {
    int most = 0;
    for_each_lane([&](uintptr_t a) {
      int same = 0;
      for_each_lane([&](uintptr_t b) { same += a == b; });
      most = std::max(most, same);
    });
    return most;
  }
};

}  // namespace cuda_emulator
