// Greedy NMS of up to 256 boxes by one block, in shared memory.
//
//   best.ranks | 0 | 1 | 2 | ... | n - 1 |            by falling score (best_ranks.cuh)
//   boxes      | 0 | 1 | 2 | ... | n - 1 | n - 1 ..   up to a multiple of 64
//   overlapped   a row a box, a bit for each before it that it overlaps too much; warps find 32 x 8 of them at a time
//   kept       |  64 bits  |  64 bits  | ...          one warp settles 64 boxes after the other
//
// The functions are called one after another, by all threads, with barriers in between.
#pragma once

#include "common/best_ranks.cuh"
#include "nms/overlap.cuh"
#include "nms/settle.cuh"

namespace boxops::cuda {
namespace {

constexpr int kFew = kAtOnce, kFewWords = kFew / 64;

template <class T>
struct Few {
  Best best;
  Upright<T> boxes[kFew];
  unsigned overlapped[kFew][kFew / 32 + 1];  // one word more, for the banks
  unsigned out[kFew / 32];                   // bits of those that are out beforehand
  Word kept[kFewWords];
};

// A copy without the padding, which nothing has written.
template <class T>
__device__ Upright<T> copy_of(const Upright<T>& box) {
  return {static_cast<const Shape<T>&>(box)};
}

// Fills `boxes` with the box_at(index) of n ranks; none is out.
template <class T, class BoxAt>
__device__ void load_boxes(int n, BoxAt box_at, Few<T>& few) {
  const int t = static_cast<int>(threadIdx.x);
  if (t < kFew / 32) few.out[t] = 0;
  if (t >= 64 * blocks_of(n, 64)) return;
  const Upright<T> box = box_at(few.best.ranks[min_of(t, n - 1)].pair);
  few.boxes[t] = box;
}

struct All {
  __device__ unsigned operator()(int, int) const { return ~0u; }
};

// Finds `overlapped` of n boxes, a warp 32 of them and kColumns of those before them at a time: so few that all warps
// have some. among(i, first): which columns from `first` on box i may overlap, as bits.
constexpr int kColumns = 8;
template <class T, class Among = All>
__device__ void compare(int n, const Threshold<T>& threshold, Few<T>& few, Among among = {}) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warps = static_cast<int>(blockDim.x) / 32;
  const int rows = static_cast<int>(2 * blocks_of(n, 64));
  constexpr int kEach = 32 / kColumns;  // of a word
  for (int tile = static_cast<int>(threadIdx.x) / 32; tile < kEach * rows * (rows + 1) / 2; tile += warps) {
    int row = 0, word = tile / kEach;
    while (word > row) word -= ++row;
    const int i = row * 32 + lane, part = word * kEach + tile % kEach, first = part * kColumns;
    const Upright<T> box = copy_of(few.boxes[i]);
    const unsigned before = i < n ? among(i, first) & static_cast<unsigned>(lowest(i - first)) : 0;
    reinterpret_cast<uint8_t*>(few.overlapped[i])[part] =
        static_cast<uint8_t>(overlapping_of<kColumns, false>(few.boxes + first, box, threshold, before));
  }
}

// Finds `kept`, of n boxes, by the first warp; stops behind the word with the last that is needed.
template <class T>
__device__ void settle(int n, int64_t needed, Few<T>& few) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane >= 32) return;
  for (int word = 0; word < kFewWords; ++word) {
    Word in = 0;
    if (word * 64 < n && needed > 0) {
      Word overlapped[2];
      bool out[2];
      for (int half = 0; half < 2; ++half) {
        const int i = word * 64 + lane + 32 * half;
        const unsigned* row = few.overlapped[i];
        Word met = 0;
        for (int w = 0; w < word; ++w) met |= (Word(row[2 * w + 1]) << 32 | row[2 * w]) & few.kept[w];
        overlapped[half] = Word(half == 0 ? 0 : row[2 * word + 1]) << 32 | row[2 * word];
        out[half] = i >= n || met != 0 || (few.out[i / 32] >> lane & 1) != 0;
      }
      in = settle(overlapped, ballot_of_64(out[0], out[1]));
    }
    if (lane == 0) few.kept[word] = in;
    __syncwarp();
    needed -= __popcll(in);
  }
}

// What a thread is told of its box.
struct Settled {
  bool kept;
  int before, all;  // how many are kept before it, and in all
};
template <class T>
__device__ Settled settled(const Few<T>& few) {
  const int t = static_cast<int>(threadIdx.x);
  Settled own{false, 0, 0};
  for (int word = 0; word < kFewWords; ++word) {
    const Word kept = few.kept[word];
    const int bit = t - 64 * word;
    own.kept = own.kept || (bit >= 0 && bit < 64 && (kept >> bit & 1) != 0);
    own.before += __popcll(kept & lowest(bit));
    own.all += __popcll(kept);
  }
  return own;
}

}  // namespace
}  // namespace boxops::cuda
