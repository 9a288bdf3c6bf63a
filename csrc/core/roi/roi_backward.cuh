// The backward kernel of all but roi_pool: deterministic without atomics, because each gradient is gathered by one
// thread.
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
// anything. Position-sensitive pooling is the same with one bin (and the channels that belong to it) per block.
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

constexpr int kLanes = 32;  // channels of a tile
constexpr int kTileWarps = kTile, kTileThreads = kTileWarps * kLanes;
template <class T>
constexpr int kTileBlocks = sizeof(T) == 8 ? 2 : 3;  // of an SM: caps the registers at 128 or 80
constexpr int kParts = 4, kTurn = 4;                 // few tiles are cut into parts, which take turns of kTurn RoIs

// What a block works on: channels of a tile, and a part of the RoIs.
struct Job {
  Tile tile;
  int64_t bin;    // the one that the channels belong to, with position-sensitive pooling
  int64_t first;  // channel
  int channels;   // one of a lane each; the other lanes idle
  int part, parts;
};

// Pieces are added kAtOnce at a time, one of each RoI; with position-sensitive pooling a piece is one bin.
template <Pooling pooling, class T>
struct TileShared {
  static constexpr int kAtOnce = is_sensitive(pooling) ? 16 : sizeof(T) == 8 ? 2 : 4;
  static constexpr int kBins = is_sensitive(pooling) ? 1 : kPiece, kAlong = is_sensitive(pooling) ? 1 : kSpan;
  union {
    T grad[kAtOnce][kLanes][kBins];
    T sums[kTile * kTile][kLanes + 1];  // in the end, to be stored
  };
  alignas(16) T weights[kAtOnce][2][kAlong][kTile];  // along y and x: what a bin gives the tile's rows or columns
  uint8_t touched[kAtOnce][2][kAlong];               // a bit for each of these
  Hit hits[kTileThreads];                            // of a chunk of RoIs, in their order
  int found[kTileWarps];
};

// Of the first n RoIs that touch a tile, how many are those of this part.
__device__ int count_of_part(int n, int part, int parts) {
  return n / (kTurn * parts) * kTurn + max_of(min_of(n % (kTurn * parts) - part * kTurn, kTurn), 0);
}

// A thread looks whether one RoI of the chunk [begin, end) touches the tile; those that do, of this part, are listed.
// Returns how many these are. `before` counts those of all parts and chunks so far.
template <Pooling pooling, class T>
__device__ int list_hits(const Job& job, const Bins& bins, const Lists<pooling, T>& lists, int64_t begin, int64_t end,
                         int* before, TileShared<pooling, T>& shared) {
  const int t = static_cast<int>(threadIdx.x), warp = t / kLanes, lane = t % kLanes;
  const int height = static_cast<int>(bins.height), width = static_cast<int>(bins.width);
  Hit hit = {0, t, {0, 0}, {0, 0}, 0, 0, 0};
  if (begin + t < end) {
    const Place<pooling, T> at = lists.places[begin + t];
    hit.y = bins_touching<T>(at.y, height, job.tile.y), hit.x = bins_touching<T>(at.x, width, job.tile.x);
    if constexpr (is_sensitive(pooling)) {
      const int p = static_cast<int>(job.bin / width), q = static_cast<int>(job.bin % width);
      hit.y = p >= hit.y.begin && p < hit.y.end ? Steps{p, p + 1} : Steps{0, 0};
      hit.x = q >= hit.x.begin && q < hit.x.end ? Steps{q, q + 1} : Steps{0, 0};
    }
  }
  const unsigned ballot = __ballot_sync(kFullMask, hit.touches());
  if (lane == 0) shared.found[warp] = __popc(ballot);
  __syncthreads();
  int place = *before + __popc(ballot & ((1u << lane) - 1)), all = *before;
  for (int w = 0; w < kTileWarps; ++w) {
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
template <Pooling pooling, class T>
__device__ void load_weights(const Job& job, const Bins& bins, const FeatureMap& map, const Place<pooling, T>* places,
                             int h, int n, int round, TileShared<pooling, T>& shared) {
  constexpr int kAlong = TileShared<pooling, T>::kAlong;
  const int t = static_cast<int>(threadIdx.x), s = t / (2 * kAlong), axis = t / kAlong % 2, b = t % kAlong;
  if (s >= n) return;
  const Piece piece = piece_of(shared.hits[h + s], round);
  const Place<pooling, T> at = places[shared.hits[h + s].offset];
  const bool is_y = axis == 0;
  T factor = T(1);
  if constexpr (is_align(pooling))
    if (is_y) factor /= static_cast<T>(sample_count(at.y.samples, at.x.samples));
  if (b < (is_y ? piece.rows : piece.columns))
    shared.touched[s][axis][b] = static_cast<uint8_t>(tile_weights<pooling, T>(
        is_y ? at.y : at.x, (is_y ? piece.p : piece.q) + b, is_y ? bins.height : bins.width,
        is_y ? map.height : map.width, is_y ? job.tile.y : job.tile.x, factor, shared.weights[s][axis][b]));
}

// The gradients of these pieces. A warp: some channels of one piece, lanes along the bins; all loads before the first
// use.
template <DType kType, Pooling pooling, class T>
__device__ void load_pieces(const Job& job, const Bins& bins, const void* grad, int64_t channels, int h, int n,
                            int round, TileShared<pooling, T>& shared) {
  constexpr int kAtOnce = TileShared<pooling, T>::kAtOnce;
  constexpr int kWarps = kTileWarps / kAtOnce, kLoads = 8;  // of a piece; of a lane
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

// The same with position-sensitive pooling. A warp: one bin after another, lanes along the channels.
template <DType kType, Pooling pooling, class T>
__device__ void load_bins(const Job& job, const Bins& bins, const FeatureMap& map, const Place<pooling, T>* places,
                          const void* grad, int64_t channels, int h, int n, TileShared<pooling, T>& shared) {
  const int warp = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  for (int s = warp; s < n; s += kTileWarps) {
    if (lane >= job.channels) continue;
    const Hit& hit = shared.hits[h + s];
    T g = load<T>(grad, kType, (hit.roi * channels + job.first + lane) * (bins.height * bins.width) + job.bin);
    if constexpr (pooling == Pooling::kSensitiveMean) {
      const Place<pooling, T> at = places[hit.offset];
      const Steps y = range_of<pooling, T>(at.y, hit.y.begin, bins.height, map.height);
      const Steps x = range_of<pooling, T>(at.x, hit.x.begin, bins.width, map.width);
      g = g / (static_cast<T>(y.end - y.begin) * static_cast<T>(x.end - x.begin));
    }
    shared.grad[s][lane][0] = g;
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
template <Pooling pooling, class T>
__device__ void add_pieces(const Job& job, int h, int n, int round, const TileShared<pooling, T>& shared,
                           T (&sum)[kTile]) {
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
template <DType kType, Pooling pooling, class T>
__device__ void store_sums(const Job& job, const Bins& bins, const Features& gradients, const T (&sum)[kTile], T* parts,
                           TileShared<pooling, T>& shared) {
  constexpr int kPixels = kTile * kTile;
  const int t = static_cast<int>(threadIdx.x), row = t / kLanes, lane = t % kLanes, pixel = t % kPixels;
  const FeatureMap& map = gradients.level[job.tile.level];
  for (int x = 0; x < kTile; ++x) shared.sums[row * kTile + x][lane] = sum[x];
  __syncthreads();
  const int64_t y = job.tile.y + pixel / kTile, x = job.tile.x + pixel % kTile;
  const int64_t image = (parts == nullptr ? 0 : job.part * gradients.images) + job.tile.image;
  const int64_t at = image * map.image_stride + y * map.y_stride + x * map.x_stride;
  const int64_t area = bins.height * bins.width;
  for (int c = t / kPixels; c < job.channels && y < map.height && x < map.width; c += kTileThreads / kPixels) {
    const int64_t channel = is_sensitive(pooling) ? (job.first + c) * area + job.bin : job.first + c;
    if (parts != nullptr) parts[at + channel * map.channel_stride] = shared.sums[pixel][c];
    else store(map.data, kType, at + channel * map.channel_stride, shared.sums[pixel][c]);
  }
  __syncthreads();
}

// Block (tile, group of channels, part of the RoIs): see above. `channels` are grad's; with position-sensitive pooling
// a group belongs to one bin.
template <Pooling pooling, class T, DType kType>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks<T>)
    backward_kernel(Features gradients, Bins bins, int64_t channels, int64_t tiles, Lists<pooling, T> lists,
                    const void* grad, T* parts) {
  __shared__ TileShared<pooling, T> shared;
  const int64_t across = blocks_of(channels, kLanes);
  const int64_t groups = is_sensitive(pooling) ? bins.height * bins.width * across : across;
  for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
    const Tile tile = locate(gradients, index);
    const FeatureMap& map = gradients.level[tile.level];
    const int64_t segment = tile.level * gradients.images + tile.image, end = lists.begin[segment + 1];
    for (int64_t group = blockIdx.y; group < groups; group += gridDim.y) {
      Job job;
      job.tile = tile, job.bin = group / across, job.first = group % across * kLanes;
      job.channels = static_cast<int>(min_of<int64_t>(kLanes, channels - job.first));
      job.part = static_cast<int>(blockIdx.z), job.parts = static_cast<int>(gridDim.z);
      T sum[kTile] = {};
      int before = 0;
      for (int64_t chunk = lists.begin[segment]; chunk < end; chunk += kTileThreads) {
        const Place<pooling, T>* places = lists.places + chunk;
        const int hits = list_hits(job, bins, lists, chunk, end, &before, shared);
        for (int h = 0; h < hits; h += shared.kAtOnce) {
          const int n = min_of(shared.kAtOnce, hits - h);
          int rounds = 1;
          for (int s = 0; s < n; ++s) rounds = max_of(rounds, shared.hits[h + s].pieces);
          for (int round = 0; round < rounds; ++round) {
            load_weights(job, bins, map, places, h, n, round, shared);
            if constexpr (is_sensitive(pooling)) load_bins<kType>(job, bins, map, places, grad, channels, h, n, shared);
            else load_pieces<kType>(job, bins, grad, channels, h, n, round, shared);
            __syncthreads();
            add_pieces(job, h, n, round, shared, sum);
            __syncthreads();
          }
        }
      }
      store_sums<kType>(job, bins, gradients, sum, parts, shared);
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
struct Cut {
  int64_t tiles, channels, groups, count;
  int parts;
};

template <Pooling pooling>
Cut cut_of(const Features& gradients, const Rois& rois, const Bins& bins) {
  const int64_t area = is_sensitive(pooling) ? bins.height * bins.width : 1;
  Cut cut = {0, gradients.channels / area, 0, 0, 1};
  for (int l = 0; l < gradients.levels; ++l) {
    cut.tiles += tiles_of(gradients.level[l]) * gradients.images;
    cut.count += gradients.images * gradients.level[l].image_stride;
  }
  cut.groups = blocks_of(cut.channels, kLanes) * area;
  const bool few = cut.tiles * cut.groups < 1024 && rois.count > kTurn;
  if (few && !is_sensitive(pooling) && gradients.levels == 1) cut.parts = kParts;
  return cut;
}

template <Pooling pooling, class T>
int backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients, void* workspace,
             void* stream) {
  Workspace w(workspace);
  const Lists<pooling, T> lists(w, gradients, rois.count);
  BOXOPS_TRY(list_rois(gradients, rois, bins, lists, stream));
  const Cut cut = cut_of<pooling>(gradients, rois, bins);
  T* parts = cut.parts > 1 ? w.take<T>(cut.parts * cut.count) : nullptr;
  return with_storage<T>(gradients.dtype, [&](auto type) {
    const dim3 grid(grid_x(cut.tiles), grid_yz(cut.groups), static_cast<unsigned>(cut.parts));
    BOXOPS_TRY(launch(backward_kernel<pooling, T, type()>, grid, kTileThreads, stream, gradients, bins, cut.channels,
                      cut.tiles, lists, grad, parts));
    if (parts == nullptr) return static_cast<int>(cudaSuccess);
    return launch(add_parts_kernel<T, type()>, grid_x(blocks_of(cut.count, kTileThreads)), kTileThreads, stream, parts,
                  cut.count, gradients.level[0].data);
  });
}

template <Pooling pooling, class T>
size_t backward_workspace(const Features& gradients, const Rois& rois, const Bins& bins) {
  Workspace w(nullptr);
  const Lists<pooling, T> lists(w, gradients, rois.count);
  const Cut cut = cut_of<pooling>(gradients, rois, bins);
  if (cut.parts > 1) w.take<T>(cut.parts * cut.count);
  return w.used();
}

}  // namespace
}  // namespace boxops::cuda
