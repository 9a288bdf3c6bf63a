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
// The heaviest tile is a chain of its RoIs, so those of a tile with many are cut into parts (roi_parts.cuh), a block
// each. A part's sums are left in memory; the block that is done last adds them in order. So a gradient's additions
// have one order, whichever block that is.
//
// Before: RoIs are listed by (level, image), see roi_lists.cuh, and tiles are cut.
//
// Cost, estimated: 512 RoIs of 14 x 14 pixels x 256 channels on 50 x 50, 7 x 7 bins, 2 x 2 samples, float32. With
// atomics: 26 MB of grad are read and 103 M numbers added atomically, 16 for each of grad's. Here: 49 tiles of 80 RoIs,
// in some 200 parts of 20 for each 32 channels; a RoI meets (14 + 8)^2 / 8^2 = 7.6 tiles and about half of its bins in
// each, so grad is read 3.9 times (100 MB, mostly from L2); 60 M multiply-adds, 32 at a time; 13 MB of parts written
// and read. A batch of FPN levels (2 images, 256 channels, 200 x 272 and down) has 18 000 blocks, most of which see few
// RoIs, and writes 148 MB: that, not the RoIs, is what it costs.
#pragma once

#include "common/last_block.cuh"
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
template <class T>
using AlignPlace = Place<Pooling::kAlign, T>;
template <class T>
using AlignLists = Lists<Pooling::kAlign, T>;

// What a block works on: channels of a tile, and a part of the RoIs that touch it.
struct Job {
  Tile tile;
  int64_t first;   // channel
  int channels;    // one of a lane each; the other lanes idle
  int begin, end;  // RoIs
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
  Piece pieces[kAtOnce];
  Hit hits[kTileThreads];  // of a chunk of RoIs, in their order
  int found[kRowWarps];
};

// A thread looks whether one RoI of the chunk [begin, end) touches the tile; those that do, of this part, are listed.
// Returns how many these are. `before` counts those of all parts in the chunks so far.
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
  const int first = max_of(job.begin, *before);
  if (hit.touches() && place >= first && place < job.end) {
    hit.roi = lists.order[begin + t];
    hit.cut();
    shared.hits[place - first] = hit;
  }
  *before = all;
  __syncthreads();
  return max_of(min_of(all, job.end) - first, 0);
}

// Piece `round` of each of the n hits from h on, a thread per bin and axis: what the bin gives the tile's rows or
// columns.
template <class T>
__device__ void load_weights(const Job& job, const Bins& bins, const FeatureMap& map, const AlignPlace<T>* places,
                             int h, int n, int round, TileShared<T>& shared) {
  const int t = static_cast<int>(threadIdx.x), s = t / (2 * kSpan), axis = t / kSpan % 2, b = t % kSpan;
  if (s >= n) return;
  const Piece piece = piece_of(shared.hits[h + s], round);
  const AlignPlace<T> place = places[shared.hits[h + s].offset];
  if (axis == 0 && b == 0) shared.pieces[s] = piece;
  const bool is_y = axis == 0;
  const AlignAxis<T> at = is_y ? place.y : place.x;
  const T factor = is_y ? T(1) / static_cast<T>(sample_count(at.samples, place.x.samples)) : T(1);
  if (b < (is_y ? piece.rows : piece.columns))
    shared.touched[s][axis][b] = static_cast<uint8_t>(
        tile_weights<Pooling::kAlign, T>(at, (is_y ? piece.p : piece.q) + b, is_y ? bins.height : bins.width,
                                         static_cast<int>(is_y ? map.height : map.width),
                                         is_y ? job.tile.y : job.tile.x, factor, shared.weights[s][axis][b]));
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
  const unsigned area = static_cast<unsigned>(bins.height * bins.width);  // at most 2^30
  const int64_t base = (shared.hits[h + s].roi * channels + job.first) * area;
#pragma unroll 1
  for (int i = lane; i < piece.rows * piece.columns; i += kLanes) {
    const int p = i / piece.columns, q = i - p * piece.columns;
    const int bin = (piece.p + p) * static_cast<int>(bins.width) + piece.q + q;
    const char* from = static_cast<const char*>(grad) + (base + bin) * storage_bytes(kType);
#pragma unroll 1
    for (int channel = warp / kAtOnce; channel < job.channels; channel += kWarps * kLoads) {
      T g[kLoads];
#pragma unroll
      for (int c = 0; c < kLoads; ++c)
        if (channel + c * kWarps < job.channels)
          g[c] = load<T>(from, kType, int64_t(area) * static_cast<unsigned>(channel + c * kWarps));
#pragma unroll
      for (int c = 0; c < kLoads; ++c)
        if (channel + c * kWarps < job.channels) shared.grad[s][channel + c * kWarps][i] = g[c];
    }
  }
}

// Adds the first kRows bins along y of `rows`, those of a piece that touch the row, to a thread's row of sums, and
// returns the others: along y first, then spread along x. A pixel that a bin does not touch has weight 0, which only a
// finite gradient may be multiplied with.
template <int kRows, class T>
__device__ unsigned add_bin_rows(unsigned rows, int s, const TileShared<T>& shared, T (&sum)[kTile]) {
  const int row = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  const int n = __popc(rows), columns = shared.pieces[s].columns;
  const T *grad = shared.grad[s][lane], (*x)[kTile] = shared.weights[s][1];
  T weight[kRows];
  int at[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int p = max_of(__ffs(static_cast<int>(rows)) - 1, 0);
    weight[r] = shared.weights[s][0][p][row], at[r] = p * columns;
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
        if (shared.touched[s][1][q] >> i & 1) sum[i] += x[q][i] * g;
    }
  }
  return rows;
}

// Adds the n pieces in shared memory, in order. A row is mostly touched by one bin along y or two, of small RoIs by
// more.
template <class T>
__device__ void add_pieces(const Job& job, int n, const TileShared<T>& shared, T (&sum)[kTile]) {
  const int row = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
#pragma unroll 1
  for (int s = 0; s < n; ++s) {
    unsigned rows =  // of bins that touch the row of pixels
        __ballot_sync(kFullMask, lane < shared.pieces[s].rows && (shared.touched[s][0][lane] >> row & 1));
    if (lane >= job.channels) continue;
#pragma unroll 1
    while (__popc(rows) > 2) rows = add_bin_rows<4>(rows, s, shared, sum);
    if (rows != 0) add_bin_rows<2>(rows, s, shared, sum);
  }
}

// Adds a job's RoIs, those of `range` that touch its tile, to a thread's row of sums.
template <DType kType, class T>
__device__ void add_job(const Job& job, const Bins& bins, const FeatureMap& map, const AlignLists<T>& lists,
                        Range range, const void* grad, int64_t channels, TileShared<T>& shared, T (&sum)[kTile]) {
  int before = 0;
  for (int64_t chunk = range.begin; chunk < range.end && before < job.end; chunk += kTileThreads) {
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
        add_pieces(job, n, shared, sum);
        __syncthreads();
      }
    }
  }
}

// Leaves the sums of an item of a cut tile in memory. The last of the tile's blocks then has those of all parts, added
// in their order; returns whether it is this one. sums[part][x][thread], the parts `step` apart.
template <class T>
__device__ bool add_parts(const Item& item, T* sums, int64_t step, unsigned* arrived, T (&sum)[kTile]) {
  sums += threadIdx.x;
#pragma unroll
  for (int x = 0; x < kTile; ++x) sums[item.part * step + x * kTileThreads] = sum[x];
  if (!is_last_block(arrived, static_cast<unsigned>(item.parts))) return false;
#pragma unroll
  for (int x = 0; x < kTile; ++x) sum[x] = sums[x * kTileThreads];
  for (int p = 1; p < item.parts; ++p)
#pragma unroll
    for (int x = 0; x < kTile; ++x) sum[x] += sums[p * step + x * kTileThreads];
  return true;
}

// Stores a thread's row of sums, through shared memory, so that neighbouring threads store neighbouring pixels.
template <DType kType, class T>
__device__ void store_rows(const Job& job, const Features& gradients, const T (&sum)[kTile], TileShared<T>& shared) {
  constexpr int kPixels = kTile * kTile;
  const int t = static_cast<int>(threadIdx.x), row = t / kLanes, lane = t % kLanes, pixel = t % kPixels;
  const FeatureMap& map = gradients.level[job.tile.level];
  for (int x = 0; x < kTile; ++x) shared.sums[row * kTile + x][lane] = sum[x];
  __syncthreads();
  const int64_t y = job.tile.y + pixel / kTile, x = job.tile.x + pixel % kTile;
  constexpr int kApart = kTileThreads / kPixels;  // channels
  int64_t at = job.tile.image * map.image_stride + (job.first + t / kPixels) * map.channel_stride + y * map.y_stride +
               x * map.x_stride;
  if (y < map.height && x < map.width) {
#pragma unroll 4
    for (int c = t / kPixels; c < job.channels; c += kApart, at += kApart * map.channel_stride)
      store(map.data, kType, at, shared.sums[pixel][c]);
  }
  __syncthreads();
}

// Block (item, group of channels): see above.
template <class T, DType kType>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks<T>)
    backward_kernel(Features gradients, Rois rois, Bins bins, AlignLists<T> lists, const void* grad, Parts parts,
                    T* sums) {
  __shared__ TileShared<T> shared;
  constexpr int kNumbers = kTile * kTileThreads;  // of a part
  for (int64_t index = blockIdx.x; index < parts.items; index += gridDim.x) {
    Item item = {static_cast<int>(index), 0, 1, 0};
    if (parts.item != nullptr) item = parts.item[index];
    if (item.tile < 0) return;
    const Tile tile = locate(gradients, item.tile);
    const FeatureMap& map = gradients.level[tile.level];
    Range range = rois_of(rois, lists, tile.level * gradients.images + tile.image);
    if (item.parts == 0) range.end = range.begin;
    for (int64_t group = blockIdx.y; group < parts.groups; group += gridDim.y) {
      Job job;
      job.tile = tile, job.first = group * kLanes;
      job.channels = static_cast<int>(min_of<int64_t>(kLanes, gradients.channels - job.first));
      job.begin = item.part * item.rois;
      job.end = item.part + 1 < item.parts ? job.begin + item.rois : std::numeric_limits<int>::max();
      T sum[kTile] = {};
      add_job<kType>(job, bins, map, lists, range, grad, gradients.channels, shared, sum);
      const int64_t first = (index - item.part) * parts.groups + group;  // of the tile's blocks
      if (item.parts <= 1 ||
          add_parts(item, sums + first * kNumbers, parts.groups * kNumbers, parts.arrived + first, sum))
        store_rows<kType>(job, gradients, sum, shared);
    }
  }
}

template <class T>
int align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients, void* workspace,
                   void* stream) {
  Workspace w(workspace);
  const Parts parts(w, gradients, rois.count);
  const AlignLists<T> lists(w, gradients, rois.count, kListed);
  T* sums = w.take<T>(parts.cut * parts.groups * kTile * kTileThreads);
  BOXOPS_TRY(list_rois(gradients, rois, bins, lists, parts, stream));
  return with_storage<T>(gradients.dtype, [&](auto type) {
    return launch(backward_kernel<T, type()>, dim3(grid_x(parts.items), grid_yz(parts.groups)), kTileThreads, stream,
                  gradients, rois, bins, lists, grad, parts, sums);
  });
}

template <class T>
size_t align_backward_workspace(const Features& gradients, const Rois& rois) {
  Workspace w(nullptr);
  const Parts parts(w, gradients, rois.count);
  const AlignLists<T> lists(w, gradients, rois.count, kListed);
  w.take<T>(parts.cut * parts.groups * kTile * kTileThreads);
  return w.used();
}

}  // namespace
}  // namespace boxops::cuda
