// How the backward kernel of RoIAlign shares out its work: the RoIs that touch a tile are cut into parts, and an item
// is a part of a tile, or all of it.
//
//   tile        0   1   2   3   4  ...
//   touching    5  70   0  30  12           RoIs that touch it; parts of 24, say
//
//   tile        1   1   1   3   3 | 0   2   4 ... | -1      items, in the order of blocks
//   part        0   1   2   0   1 | 0   0   0
//   parts       3   3   3   2   2 | 1   0   1             0: no RoI touches it
//
// Items of cut tiles come first, so that shorter ones fill up the end. The more there is to do, the longer parts are:
// all that RoIs have to do with tiles would make kPartBlocks of them. So a block takes a quarter of what a place on a
// large GPU has to do, and memory is bounded whatever the RoIs are.
//
// One block works this out while others list the RoIs. It writes +1 where a row of a RoI's tiles begins and -1 behind
// its end; the sums of these up to a tile are what touches it. Only where nothing touches a tile has a count to be
// exact, or too high. Workspace: O(tiles), and the sums of 2 kPartBlocks blocks.
#pragma once

#include "common/warp.cuh"
#include "roi/roi_tiles.cuh"

namespace boxops::cuda {
namespace {

constexpr int kListThreads = 256;
constexpr int kFewest = 8, kMultiple = 4;  // RoIs of a part
constexpr int64_t kPartBlocks = 1536;      // 4 for each of the places that an H100 has

struct alignas(16) Item {
  int tile;         // its number; -1: there are no more items
  int part, parts;  // which, of how many
  int rois;         // of each part but the last, which has what is left
};

struct Parts {
  int64_t tiles = 0, groups = 0;  // of channels; an item has a block for each
  int64_t shares = 0;             // parts that the RoIs of all tiles would make
  int64_t items = 0, cut = 0;     // at most; those of cut tiles
  Item* item = nullptr;           // null: no tile is cut, and item i is tile i
  int* touching = nullptr;        // [tiles + 1]
  unsigned* arrived = nullptr;    // [cut][groups], at a tile's first item: how many of its blocks are done

  Parts() = default;
  Parts(Workspace& w, const Features& gradients, int64_t rois) : groups(blocks_of(gradients.channels, kLanes)) {
    for (int l = 0; l < gradients.levels; ++l) tiles += tiles_of(gradients.level[l]) * gradients.images;
    items = tiles;
    if (rois <= kFewest || tiles * groups == 0) return;
    shares = max_of<int64_t>(kPartBlocks / groups, 1);
    const int64_t more = min_of(shares, tiles * ((rois - 1) / kFewest));
    items += more, cut = more + min_of(shares, tiles);
    item = w.take<Item>(items);
    touching = w.take<int>(tiles + 1), arrived = w.take<unsigned>(cut * groups);
  }
};

// What the threads before have, in sum, and with `all` what all have.
__device__ int64_t sum_before(int64_t own, int64_t* all) {
  __shared__ int64_t sums[kListThreads / 32];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  int64_t sum = warp_scan(own, [](int64_t a, int64_t b) { return a + b; }) - own;
  __syncthreads();
  if (threadIdx.x % 32 == 31) sums[warp] = sum + own;
  __syncthreads();
  *all = 0;
  for (int w = 0; w < kListThreads / 32; ++w) {
    if (w < warp) sum += sums[w];
    *all += sums[w];
  }
  return sum;
}

// A thread marks where the rows of tiles of some RoIs begin and end.
template <class T>
__device__ void mark_tiles(const Features& gradients, const Rois& rois, const Bins& bins, int* touching) {
  for (int64_t k = threadIdx.x; k < rois.count; k += kListThreads) {
    const int64_t segment = segment_of<T>(gradients, rois, k);
    if (segment >= gradients.levels * gradients.images) continue;
    const int level = static_cast<int>(segment / gradients.images);
    const FeatureMap& map = gradients.level[level];
    const Place<Pooling::kAlign, T> at = place_of<Pooling::kAlign>(map, roi_box<T>(rois, k), bins);
    const Steps y = tiles_touching(at.y, bins.height, map.height), x = tiles_touching(at.x, bins.width, map.width);
    if (x.begin >= x.end) continue;
    const int64_t first = first_tile(gradients, level, segment % gradients.images);
    for (int row = y.begin; row < y.end; ++row) {
      int* of_row = touching + first + row * blocks_of(map.width, kTile);
      atomicAdd(of_row + x.begin, 1);
      atomicAdd(of_row + x.end, -1);
    }
  }
}

// How many parts of up to `most` RoIs a tile makes that so many touch.
__device__ int parts_of(int touching, int most) {
  return touching > most ? (touching + most - 1) / most : min_of(touching, 1);
}

// A thread writes the items of the tiles [begin, end): from `cut` on those of cut tiles, from `whole` on the others.
__device__ void write_items(const Parts& parts, int64_t begin, int64_t end, int most, int64_t cut, int64_t whole) {
  for (int64_t i = begin; i < end; ++i) {
    const int n = parts_of(parts.touching[i], most), tile = static_cast<int>(i);
    if (n <= 1) {
      parts.item[whole++] = {tile, 0, n, 0};
    } else {
      const int even = (parts.touching[i] + n * kMultiple - 1) / (n * kMultiple) * kMultiple;
      for (int p = 0; p < n; ++p) parts.item[cut++] = {tile, p, n, even};
    }
  }
}

// A block cuts all tiles, a thread a stretch of them.
template <class T>
__device__ void cut_tiles(const Features& gradients, const Rois& rois, const Bins& bins, const Parts& parts) {
  for (int64_t i = threadIdx.x; i <= parts.tiles; i += kListThreads) parts.touching[i] = 0;
  for (int64_t i = threadIdx.x; i < parts.cut * parts.groups; i += kListThreads) parts.arrived[i] = 0;
  __syncthreads();
  mark_tiles<T>(gradients, rois, bins, parts.touching);
  __syncthreads();
  const int64_t each = blocks_of(parts.tiles, kListThreads);
  const int64_t begin = min_of(threadIdx.x * each, parts.tiles), end = min_of(begin + each, parts.tiles);
  int64_t own = 0, all;
  for (int64_t i = begin; i < end; ++i) own += parts.touching[i];
  int64_t sum = sum_before(own, &all);
  own = 0;
  for (int64_t i = begin; i < end; ++i) {
    sum += parts.touching[i], own += sum;
    parts.touching[i] = static_cast<int>(sum);
  }
  sum_before(own, &all);
  const int most = static_cast<int>(max_of<int64_t>(kFewest, blocks_of(all, parts.shares * kMultiple) * kMultiple));
  constexpr int64_t kCutTile = int64_t(1) << 32;  // these are counted in the upper half, their parts in the lower
  own = 0;
  for (int64_t i = begin; i < end; ++i)
    if (const int n = parts_of(parts.touching[i], most); n > 1) own += kCutTile + n;
  sum = sum_before(own, &all);
  const int64_t cut = all % kCutTile, items = cut + parts.tiles - all / kCutTile;
  write_items(parts, begin, end, most, sum % kCutTile, cut + begin - sum / kCutTile);
  for (int64_t i = items + threadIdx.x; i < parts.items; i += kListThreads) parts.item[i].tile = -1;
}

}  // namespace
}  // namespace boxops::cuda
