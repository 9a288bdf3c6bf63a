// The backward kernel of RoIAlign: deterministic without atomics, because each gradient is gathered by one thread.
//
//             a tile: 8 x 8 pixels                         the bins of a RoI; # touch the tile
//           +-----------------------+                         .  .  .  .  .  .  .
//   warp 0  | sum[0] ...     sum[7] |                         .  #  #  #  #  .  .    piece 0: up to kPiece bins
//        1  |                       |                         .  #  #  #  #  .  .
//      ...  |                       |                           - - - - - -
//        7  |                       |                         .  #  #  #  #  .  .    piece 1
//           +-----------------------+                         .  .  .  .  .  .  .
//           of channel c, by lane c
//
// A block owns a tile of one image's gradient, and a thread keeps its row of sums in registers. The block walks the
// RoIs of its level and image in their order, a chunk at a time: list_hits finds those that touch the tile. Then, some
// pieces at a time, load_weights works out what each bin gives the tile's rows and columns, load_pieces brings the
// bins' gradients to shared memory (read as lines along the bins, used with lanes along the channels), and add_pieces
// adds them. All lanes of a warp have the same weights, so nothing diverges and only pixels that a bin touches cost
// anything.
//
//   RoIs that touch a tile   0 1 2 3 | 4 5 6 7 | 8 9 10 11 | ...
//   part of a tile           0       | 1       | 2         | 3, 0, 1, ...    a block each, where tiles are few
//
// The heaviest tile is a chain of its RoIs, so where the tiles are few blocks each is cut into parts, and their sums
// are added in order. What a RoI adds to depends on the RoIs that touch its tile alone.
//
// Before: RoIs are listed by (level, image), see roi_lists.cuh.
//
// Cost, estimated: 512 RoIs of 14 x 14 pixels x 256 channels on 50 x 50, 7 x 7 bins, 2 x 2 samples, float32. With
// atomics: 26 MB of grad are read and 103 M numbers added atomically, 16 for each of grad's. Here: 392 tiles of 4
// parts, 3 on each SM of an H200; a RoI meets (14 + 8)^2 / 8^2 = 7.6 tiles and about half of its bins in each, so grad
// is read 3.9 times (100 MB, mostly from L2); 60 M multiply-adds, 32 at a time; 10 MB of parts written and read. A
// batch of FPN levels (2 images, 256 channels, 200 x 272 and down) has 18 000 blocks, most of which see few RoIs, and
// writes 148 MB: that, not the RoIs, is what it costs. The worst case is every RoI at one place: few tiles do all the
// work.
#pragma once

#include "common/warp.cuh"
#include "roi/roi_lists.cuh"
#include "roi/roi_tiles.cuh"

namespace boxops::cuda {
namespace {

constexpr int kSpan = 16;   // bins of a piece along one axis, at most
constexpr int kPiece = 49;  // bins of a piece; odd, so that lanes read from different banks
constexpr int kRowWarps = kTile, kTileThreads = kRowWarps * kLanes;
template <class T>
constexpr int kTileBlocks = sizeof(T) == 8 ? 2 : 3;  // of an SM: caps the registers at 128 or 80
constexpr int64_t kListed = kLooks + 1;              // too many: RoIs are always listed
constexpr int kParts = 4, kTurn = 4;                 // few tiles are cut into parts, which take turns of kTurn RoIs
template <class T>
using AlignPlace = Place<Pooling::kAlign, T>;
template <class T>
using AlignLists = Lists<Pooling::kAlign, T>;

// What a block works on: channels of a tile, and a part of the RoIs.
struct Job {
  Tile tile;
  int64_t first;  // channel
  int channels;   // one of a lane each; the other lanes idle
  int part, parts;
};

// A RoI that touches a tile: its bins that do, and how they are cut into pieces.
struct Hit {
  int64_t roi;
  int offset;                // of its place, from the first of the chunk
  Steps y, x;                // its bins
  int rows, across, pieces;  // bins along y in a piece; pieces along x, and in all

  __device__ bool touches() const { return y.begin < y.end && x.begin < x.end; }
  __device__ void cut() {
    rows = min_of(kSpan, kPiece / min_of(kSpan, x.end - x.begin));
    across = (x.end - x.begin + kSpan - 1) / kSpan;
    pieces = (y.end - y.begin + rows - 1) / rows * across;
  }
};

struct Piece {
  int p, q, rows, columns;  // no rows: no piece
};

__device__ Piece piece_of(const Hit& hit, int i) {
  if (i >= hit.pieces) return {0, 0, 0, 0};
  int p = hit.y.begin, q = hit.x.begin;
  if (i > 0) p += i / hit.across * hit.rows, q += i % hit.across * kSpan;
  return {p, q, min_of(hit.rows, hit.y.end - p), min_of(kSpan, hit.x.end - q)};
}

// Pieces are added kAtOnce at a time, one of each RoI.
template <class T>
struct TileShared {
  static constexpr int kAtOnce = sizeof(T) == 8 ? 2 : 4;
  union {
    T grad[kAtOnce][kLanes][kPiece];
    T sums[kTile * kTile][kLanes + 1];  // in the end, to be stored
  };
  alignas(16) T weights[kAtOnce][2][kSpan][kTile];  // along y and x: what a bin gives the tile's rows or columns
  uint8_t touched[kAtOnce][2][kSpan];               // a bit for each of these
  Hit hits[kTileThreads];                           // of a chunk of RoIs, in their order
  int found[kRowWarps];
};

// Of the first n RoIs that touch a tile, how many are those of this part.
__device__ int count_of_part(int n, int part, int parts) {
  return n / (kTurn * parts) * kTurn + max_of(min_of(n % (kTurn * parts) - part * kTurn, kTurn), 0);
}

// A thread looks whether one RoI of the chunk [begin, end) touches the tile; those that do, of this part, are listed.
// Returns how many these are. `before` counts those of all parts and chunks so far.
template <class T>
__device__ int list_hits(const Job& job, const Bins& bins, const AlignLists<T>& lists, int64_t begin, int64_t end,
                         int* before, TileShared<T>& shared) {
  const int t = static_cast<int>(threadIdx.x), warp = t / kLanes, lane = t % kLanes;
  const int height = static_cast<int>(bins.height), width = static_cast<int>(bins.width);
  Hit hit = {0, t, {0, 0}, {0, 0}, 0, 0, 0};
  if (begin + t < end) {
    const AlignPlace<T> at = lists.places[begin + t];
    hit.y = bins_touching(at.y, height, job.tile.y), hit.x = bins_touching(at.x, width, job.tile.x);
  }
  const unsigned ballot = __ballot_sync(kFullMask, hit.touches());
  if (lane == 0) shared.found[warp] = __popc(ballot);
  __syncthreads();
  int place = *before + __popc(ballot & ((1u << lane) - 1)), all = *before;
  for (int w = 0; w < kRowWarps; ++w) {
    if (w < warp) place += shared.found[w];
    all += shared.found[w];
  }
  const int listed = count_of_part(*before, job.part, job.parts);
  *before = all;
  if (hit.touches() && place / kTurn % job.parts == job.part) {
    hit.roi = lists.order[begin + t];
    hit.cut();
    shared.hits[count_of_part(place, job.part, job.parts) - listed] = hit;
  }
  __syncthreads();
  return count_of_part(all, job.part, job.parts) - listed;
}

// Piece `round` of each of the n hits from h on, a thread per bin and axis: what the bin gives the tile's rows or
// columns.
template <class T>
__device__ void load_weights(const Job& job, const Bins& bins, const FeatureMap& map, const AlignPlace<T>* places,
                             int h, int n, int round, TileShared<T>& shared) {
  const int t = static_cast<int>(threadIdx.x), s = t / (2 * kSpan), axis = t / kSpan % 2, b = t % kSpan;
  if (s >= n) return;
  const Piece piece = piece_of(shared.hits[h + s], round);
  const AlignPlace<T> at = places[shared.hits[h + s].offset];
  const bool is_y = axis == 0;
  const T factor = is_y ? T(1) / static_cast<T>(sample_count(at.y.samples, at.x.samples)) : T(1);
  if (b < (is_y ? piece.rows : piece.columns))
    shared.touched[s][axis][b] = static_cast<uint8_t>(tile_weights<Pooling::kAlign, T>(
        is_y ? at.y : at.x, (is_y ? piece.p : piece.q) + b, is_y ? bins.height : bins.width,
        is_y ? map.height : map.width, is_y ? job.tile.y : job.tile.x, factor, shared.weights[s][axis][b]));
}

// The gradients of these pieces. A warp: some channels of one piece, lanes along the bins; all loads before the first
// use.
template <DType kType, class T>
__device__ void load_pieces(const Job& job, const Bins& bins, const void* grad, int64_t channels, int h, int n,
                            int round, TileShared<T>& shared) {
  constexpr int kAtOnce = TileShared<T>::kAtOnce;
  constexpr int kWarps = kRowWarps / kAtOnce, kLoads = 8;  // of a piece; of a lane
  const int warp = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  const int s = warp % kAtOnce;
  if (s >= n) return;
  const Piece piece = piece_of(shared.hits[h + s], round);
  const int64_t area = bins.height * bins.width, base = (shared.hits[h + s].roi * channels + job.first) * area;
#pragma unroll 1
  for (int i = lane; i < piece.rows * piece.columns; i += kLanes) {
    const int p = i / piece.columns, q = i - p * piece.columns;
    const int64_t at = base + (int64_t(piece.p + p) * static_cast<int>(bins.width) + piece.q + q);
#pragma unroll 1
    for (int channel = warp / kAtOnce; channel < job.channels; channel += kWarps * kLoads) {
      T g[kLoads];
#pragma unroll
      for (int c = 0; c < kLoads; ++c)
        if (channel + c * kWarps < job.channels) g[c] = load<T>(grad, kType, at + (channel + c * kWarps) * area);
#pragma unroll
      for (int c = 0; c < kLoads; ++c)
        if (channel + c * kWarps < job.channels) shared.grad[s][channel + c * kWarps][i] = g[c];
    }
  }
}

// Adds a piece to a thread's row of sums: its bins along y first, four at a time, then spread along x. `rows` are those
// that touch the row, with weights y[.][row]; grad is the thread's channel. A pixel that a bin does not touch has
// weight 0, which only a finite gradient may be multiplied with.
template <class T>
__device__ void add_piece(unsigned rows, int columns, int row, const T* grad, const T (*y)[kTile], const T (*x)[kTile],
                          const uint8_t* touched, T (&sum)[kTile]) {
  constexpr int kRows = 4;
#pragma unroll 1
  while (rows != 0) {
    const int n = __popc(rows);
    T weight[kRows];
    int at[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int p = max_of(__ffs(static_cast<int>(rows)) - 1, 0);
      weight[r] = y[p][row], at[r] = p * columns;
      rows &= rows - 1;
    }
#pragma unroll 2
    for (int q = 0; q < columns; ++q) {
      T g = weight[0] * grad[at[0] + q];
#pragma unroll
      for (int r = 1; r < kRows; ++r)
        if (r < n) g = std::fma(weight[r], grad[at[r] + q], g);
      if (std::fabs(g) <= std::numeric_limits<T>::max()) {
#pragma unroll
        for (int i = 0; i < kTile; ++i) sum[i] = std::fma(x[q][i], g, sum[i]);
      } else {
#pragma unroll
        for (int i = 0; i < kTile; ++i)
          if (touched[q] >> i & 1) sum[i] += x[q][i] * g;
      }
    }
  }
}

// Adds the pieces in shared memory, in order.
template <class T>
__device__ void add_pieces(const Job& job, int h, int n, int round, const TileShared<T>& shared, T (&sum)[kTile]) {
  const int row = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
#pragma unroll 1
  for (int s = 0; s < n; ++s) {
    const Piece piece = piece_of(shared.hits[h + s], round);
    const unsigned rows =  // of bins that touch the row of pixels
        __ballot_sync(kFullMask, lane < piece.rows && (shared.touched[s][0][lane] >> row & 1));
    if (rows != 0 && lane < job.channels)
      add_piece(rows, piece.columns, row, shared.grad[s][lane], shared.weights[s][0], shared.weights[s][1],
                shared.touched[s][1], sum);
  }
}

// Stores a thread's row of sums, through shared memory, so that neighbouring threads store neighbouring pixels. Where
// there are parts, parts[job.part] takes the gradients' place.
template <DType kType, class T>
__device__ void store_rows(const Job& job, const Features& gradients, const T (&sum)[kTile], T* parts,
                           TileShared<T>& shared) {
  constexpr int kPixels = kTile * kTile;
  const int t = static_cast<int>(threadIdx.x), row = t / kLanes, lane = t % kLanes, pixel = t % kPixels;
  const FeatureMap& map = gradients.level[job.tile.level];
  for (int x = 0; x < kTile; ++x) shared.sums[row * kTile + x][lane] = sum[x];
  __syncthreads();
  const int64_t y = job.tile.y + pixel / kTile, x = job.tile.x + pixel % kTile;
  const int64_t image = (parts == nullptr ? 0 : job.part * gradients.images) + job.tile.image;
  const int64_t at = image * map.image_stride + y * map.y_stride + x * map.x_stride;
  for (int c = t / kPixels; c < job.channels && y < map.height && x < map.width; c += kTileThreads / kPixels) {
    const int64_t to = at + (job.first + c) * map.channel_stride;
    if (parts != nullptr) parts[to] = shared.sums[pixel][c];
    else store(map.data, kType, to, shared.sums[pixel][c]);
  }
  __syncthreads();
}

// Block (tile, group of channels, part of the RoIs): see above.
template <class T, DType kType>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks<T>)
    backward_kernel(Features gradients, Rois rois, Bins bins, int64_t tiles, AlignLists<T> lists, const void* grad,
                    T* parts) {
  __shared__ TileShared<T> shared;
  const int64_t channels = gradients.channels, groups = blocks_of(channels, kLanes);
  for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
    const Tile tile = locate(gradients, index);
    const FeatureMap& map = gradients.level[tile.level];
    const Range range = rois_of(rois, lists, tile.level * gradients.images + tile.image);
    for (int64_t group = blockIdx.y; group < groups; group += gridDim.y) {
      Job job;
      job.tile = tile, job.first = group * kLanes;
      job.channels = static_cast<int>(min_of<int64_t>(kLanes, channels - job.first));
      job.part = static_cast<int>(blockIdx.z), job.parts = static_cast<int>(gridDim.z);
      T sum[kTile] = {};
      int before = 0;
      for (int64_t chunk = range.begin; chunk < range.end; chunk += kTileThreads) {
        const AlignPlace<T>* places = lists.places + chunk;
        const int hits = list_hits(job, bins, lists, chunk, range.end, &before, shared);
        for (int h = 0; h < hits; h += shared.kAtOnce) {
          const int n = min_of(shared.kAtOnce, hits - h);
          int rounds = 1;
          for (int s = 0; s < n; ++s) rounds = max_of(rounds, shared.hits[h + s].pieces);
          for (int round = 0; round < rounds; ++round) {
            load_weights(job, bins, map, places, h, n, round, shared);
            load_pieces<kType>(job, bins, grad, channels, h, n, round, shared);
            __syncthreads();
            add_pieces(job, h, n, round, shared, sum);
            __syncthreads();
          }
        }
      }
      store_rows<kType>(job, gradients, sum, parts, shared);
    }
  }
}

// A thread adds the parts of one number.
template <class T, DType kType>
__global__ void __launch_bounds__(kTileThreads) add_parts_kernel(const T* parts, int64_t count, void* out) {
  for (const int64_t i : grid_stride<kTileThreads>(count)) {
    T part[kParts];
#pragma unroll
    for (int p = 0; p < kParts; ++p) part[p] = parts[p * count + i];
    for (int p = 1; p < kParts; ++p) part[0] += part[p];
    store(out, kType, i, part[0]);
  }
}

// How the gradients are cut. Parts pay where the tiles alone are few blocks, of which the heaviest would be waited for;
// up to kTurn RoIs all belong to the first part.
struct AlignCut {
  int64_t tiles = 0, groups, count = 0;
  int parts;
  AlignCut(const Features& gradients, const Rois& rois) : groups(blocks_of(gradients.channels, kLanes)) {
    for (int l = 0; l < gradients.levels; ++l) {
      tiles += tiles_of(gradients.level[l]) * gradients.images;
      count += gradients.images * gradients.level[l].image_stride;
    }
    const bool few = tiles * groups < 1024 && rois.count > kTurn && gradients.levels == 1;
    parts = few ? kParts : 1;
  }
};

template <class T>
int align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients, void* workspace,
                   void* stream) {
  Workspace w(workspace);
  const AlignCut cut(gradients, rois);
  const AlignLists<T> lists(w, gradients, rois.count, kListed);
  BOXOPS_TRY(list_rois(gradients, rois, bins, lists, stream));
  T* parts = cut.parts > 1 ? w.take<T>(cut.parts * cut.count) : nullptr;
  return with_storage<T>(gradients.dtype, [&](auto type) {
    const dim3 grid(grid_x(cut.tiles), grid_yz(cut.groups), static_cast<unsigned>(cut.parts));
    BOXOPS_TRY(launch(backward_kernel<T, type()>, grid, kTileThreads, stream, gradients, rois, bins, cut.tiles, lists,
                      grad, parts));
    if (parts == nullptr) return static_cast<int>(cudaSuccess);
    return launch(add_parts_kernel<T, type()>, grid_x(blocks_of(cut.count, kTileThreads)), kTileThreads, stream, parts,
                  cut.count, gradients.level[0].data);
  });
}

template <class T>
size_t align_backward_workspace(const Features& gradients, const Rois& rois) {
  Workspace w(nullptr);
  const AlignCut cut(gradients, rois);
  const AlignLists<T> lists(w, gradients, rois.count, kListed);
  if (cut.parts > 1) w.take<T>(cut.parts * cut.count);
  return w.used();
}

}  // namespace
}  // namespace boxops::cuda
