// The backward kernel of RoIAlign: deterministic without atomics, because each gradient is gathered by one block. One
// launch, but for very many RoIs (roi_lists.cuh).
//
//   block     a tile of 4 x 8 pixels (roi_tiles.cuh) of up to 64 channels; its RoIs take turns:
//
//             hits of the tile   0 1 | 2 3 | 4 5 | 6 7 || 8 9 | ...    RoIs that may touch it, in order, by chunks
//             part               0   | 1   | 2   | 3   || 0   | ...    a warp for each 32 channels
//
//   the bins of a RoI; # touch the tile       weights   of 8 hits, once for all channels: what a bin gives the rows of
//     .  .  .  .  .  .  .                               pixels, and the columns
//     .  #  #  #  #  .  .   piece 0:          grad      of one hit and 32 channels: read as lines along the bins, used
//     .  #  #  #  #  .  .   4 x 8 bins                  with lanes along the channels; the next is on its way
//       - - - - - -                           sum       grad of a row of bins times weights along x, all of that times
//     .  #  #  #  #  .  .   piece 1                     weights along y; in the end the parts are added, in order
//     .  .  .  .  .  .  .
//
// Cost: of a hit some 18 instructions of a warp for each of its bins that touches the tile, 50 for each row of them,
// and 7 to stage 16 or 32 bins of a channel. The worst case is every RoI at one place: few tiles do all the work.
#pragma once

#include "roi/roi_lists.cuh"
#include "roi/roi_tiles.cuh"

namespace boxops::cuda {
namespace {

constexpr int kRows = 4;        // of pixels of a tile
constexpr int kSpan = 8;        // bins of a piece along x, at most
constexpr int kPiece = kLanes;  // bins of a piece, at most
constexpr int kPieceRows = kPiece / kSpan;
template <class T>
constexpr int kParts = sizeof(T) == 8 ? 2 : 4;
template <class T>
constexpr int kGroups = sizeof(T) == 8 ? 1 : 2;  // of 32 channels of a block, at most
template <class T>
using AlignPlace = Place<Pooling::kAlign, T>;
template <class T>
using AlignLists = Lists<Pooling::kAlign, T>;

// What a warp works on: channels of a tile, and a part of the RoIs.
struct Job {
  Tile tile;
  int64_t first;  // channel
  int channels;   // one of a lane each; the other lanes idle, and whole warps where there are none
  int part;
};

// The bins of a RoI that touch a tile.
struct Touching {
  uint16_t top, bottom, left, right;  // [top, bottom) along y, [left, right) along x
};

struct Piece {
  int p, q, rows, columns;  // no rows: no piece
};

__device__ inline int across(const Touching& t) { return (t.right - t.left + kSpan - 1) / kSpan; }
__device__ inline int pieces_of(const Touching& t) {
  return (t.bottom - t.top + kPieceRows - 1) / kPieceRows * across(t);
}
__device__ inline Piece piece_of(const Touching& t, int i) {
  if (i >= pieces_of(t)) return {0, 0, 0, 0};
  int p = t.top, q = t.left;
  if (i > 0) p += i / across(t) * kPieceRows, q += i % across(t) * kSpan;
  return {p, q, min_of(kPieceRows, t.bottom - p), min_of(kSpan, t.right - q)};
}

template <class T>
struct TileShared {
  static constexpr int kWarps = kParts<T> * kGroups<T>, kThreads = kWarps * kLanes, kEach = 2;  // hits of a part
  static constexpr int kAtOnce = kEach * kParts<T>;
  T grad[kWarps][kLanes][kPiece + 1];               // of a warp's channels; in the end, its sums
  alignas(16) T weights[kAtOnce][2][kSpan][kTile];  // along y and x
  uint8_t touched[kAtOnce][2][kSpan];               // a bit for each of these that is not 0
  int64_t rois[kThreads];                           // of a chunk
  AlignPlace<T> places[kThreads];
  uint16_t listed[kThreads];  // those of the chunk that may touch the tile
  Touching touching[kThreads];
  int found[kWarps];
};

// A thread looks whether one RoI of the chunk may touch the tile. Returns how many are listed.
template <class T>
__device__ int list_hits(const Job& job, const Features& gradients, const Rois& rois, const Bins& bins,
                         const AlignLists<T>& lists, int64_t segment, int64_t chunk, int64_t end,
                         TileShared<T>& shared) {
  const int t = static_cast<int>(threadIdx.x), warp = t / kLanes, lane = t % kLanes;
  const int height = static_cast<int>(bins.height), width = static_cast<int>(bins.width);
  bool touches = false;
  if (chunk + t < end) {
    AlignPlace<T> at;
    shared.rois[t] = find_roi(gradients, rois, bins, lists, segment, chunk + t, &at);
    touches = shared.rois[t] >= 0 && may_touch(at.y, height, 0, height, job.tile.y, kRows) &&
              may_touch(at.x, width, 0, width, job.tile.x, kTile);
    if (touches) shared.places[t] = at;
  }
  const unsigned ballot = __ballot_sync(kFullMask, touches);
  if (lane == 0) shared.found[warp] = __popc(ballot);
  __syncthreads();
  int place = __popc(ballot & ((1u << lane) - 1)), all = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / kLanes; ++w) {
    if (w < warp) place += shared.found[w];
    all += shared.found[w];
  }
  if (touches) {
    shared.listed[place] = static_cast<uint16_t>(t);
    const Steps y = bins_touching(shared.places[t].y, height, job.tile.y, kRows);
    const Steps x = bins_touching(shared.places[t].x, width, job.tile.x, kTile);
    shared.touching[place] = {static_cast<uint16_t>(y.begin), static_cast<uint16_t>(max_of(y.end, y.begin)),
                              static_cast<uint16_t>(x.begin), static_cast<uint16_t>(max_of(x.end, x.begin))};
  }
  __syncthreads();
  return all;
}

// Piece `round` of the hits [h, end), kAtOnce at most. A thread works out what one bin gives the tile's rows or
// columns.
template <class T>
__device__ void load_weights(const Job& job, const Bins& bins, const FeatureMap& map, int h, int end, int round,
                             TileShared<T>& shared) {
  for (int i = static_cast<int>(threadIdx.x); i < (end - h) * 2 * kSpan; i += static_cast<int>(blockDim.x)) {
    const int s = i / (2 * kSpan), axis = i / kSpan % 2, b = i % kSpan;
    const Piece piece = piece_of(shared.touching[h + s], round);
    const AlignPlace<T>& at = shared.places[shared.listed[h + s]];
    const bool is_y = axis == 0;
    if (b >= (is_y ? piece.rows : piece.columns)) continue;
    const T factor = is_y ? T(1) / static_cast<T>(sample_count(at.y.samples, at.x.samples)) : T(1);
    shared.touched[s][axis][b] = static_cast<uint8_t>(tile_weights<Pooling::kAlign, T>(
        is_y ? at.y : at.x, (is_y ? piece.p : piece.q) + b, 0, is_y ? map.height : map.width,
        is_y ? job.tile.y : job.tile.x, factor, shared.weights[s][axis][b]));
  }
}

// The gradients of a piece on their way through a warp: lanes along the bins of one channel, or of two at a time where
// the bins are few.
template <DType kType, class T>
struct Load {
  T g[kLanes];
  bool few;

  // All loads before the first use. `of_roi`: the channels of a RoI.
  __device__ void begin(const Job& job, const Bins& bins, int64_t of_roi, const void* grad, int64_t roi,
                        const Piece& piece) {
    const unsigned n = piece.rows * piece.columns, lane = threadIdx.x % kLanes;
    few = n <= kLanes / 2;
    const unsigned i = few ? lane % (kLanes / 2) : lane, p = i / max_of(piece.columns, 1), q = i - p * piece.columns;
    const int64_t area = bins.height * bins.width;
    const int64_t at =
        (roi * of_roi + job.first) * area + ((piece.p + p) * static_cast<unsigned>(bins.width) + piece.q + q);
    const int channels = i < n ? job.channels : 0;
    if (few) load_each<2>(channels, area, grad, at);
    else load_each<1>(channels, area, grad, at);
  }

  // Puts them to shared memory; returns whether all are finite.
  __device__ bool end(T (*to)[kPiece + 1]) const { return few ? put_each<2>(to) : put_each<1>(to); }

 private:
  template <int step>
  __device__ void load_each(int channels, int64_t area, const void* grad, int64_t at) {
    const int first = static_cast<int>(threadIdx.x) % kLanes / (kLanes / step);
    at += first * area, area *= step;
#pragma unroll
    for (int c = 0; c < kLanes / step; ++c, at += area)
      g[c] = first + c * step < channels ? load<T>(grad, kType, at) : T(0);
  }

  template <int step>
  __device__ bool put_each(T (*to)[kPiece + 1]) const {
    const int lane = static_cast<int>(threadIdx.x) % kLanes, first = lane / (kLanes / step);
    T zero = T(0);  // times what is not finite: NaN
#pragma unroll
    for (int c = 0; c < kLanes / step; ++c) {
      to[first + c * step][lane % (kLanes / step)] = g[c];
      zero = std::fma(g[c], T(0), zero);
    }
    return __all_sync(kFullMask, zero == T(0));
  }
};

// Adds a piece to the sums of a lane's channel. A pixel that a bin does not touch has weight 0, which only a finite
// gradient may be multiplied with.
template <class T>
__device__ void add_piece(const Piece& piece, bool finite, const T* grad, const T (&weights)[2][kSpan][kTile],
                          const uint8_t (&touched)[2][kSpan], T (&sum)[kRows][kTile]) {
#pragma unroll 1
  for (int p = 0; p < piece.rows; ++p, grad += piece.columns) {
    T along[kTile] = {};
    if (finite) {
#pragma unroll 2
      for (int q = 0; q < piece.columns; ++q)
#pragma unroll
        for (int i = 0; i < kTile; ++i) along[i] = std::fma(weights[1][q][i], grad[q], along[i]);
    } else {
#pragma unroll 1
      for (int q = 0; q < piece.columns; ++q)
#pragma unroll
        for (int i = 0; i < kTile; ++i)
          if (touched[1][q] >> i & 1) along[i] = std::fma(weights[1][q][i], grad[q], along[i]);
    }
    add_rows(touched[0][p], weights[0][p], along, sum);
  }
}

// A warp adds piece `round` of the hits [h, end), in order.
template <DType kType, class T>
__device__ void add_pieces(const Job& job, const Bins& bins, int64_t channels, int h, int end, int round, int base,
                           Load<kType, T>& next, const void* grad, TileShared<T>& shared, T (&sum)[kRows][kTile]) {
  const int warp = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
#pragma unroll 1
  for (; h < end; ++h) {
    const bool finite = next.end(shared.grad[warp]);
    __syncwarp();
    if (h + 1 < end)
      next.begin(job, bins, channels, grad, shared.rois[shared.listed[h + 1]], piece_of(shared.touching[h + 1], round));
    if (lane < job.channels)
      add_piece(piece_of(shared.touching[h], round), finite, shared.grad[warp][lane], shared.weights[h - base],
                shared.touched[h - base], sum);
    __syncwarp();
  }
}

// The block adds the n hits of a chunk, those of each part in order.
template <DType kType, class T>
__device__ void add_hits(const Job& job, const Bins& bins, const FeatureMap& map, int64_t channels, const void* grad,
                         int n, TileShared<T>& shared, T (&sum)[kRows][kTile]) {
  constexpr int kEach = TileShared<T>::kEach, kAtOnce = TileShared<T>::kAtOnce;
  for (int base = 0; base < n; base += kAtOnce) {
    const int end = min_of(base + kAtOnce, n), own = base + job.part * kEach, own_end = min_of(own + kEach, end);
    int rounds = 1;
    for (int h = base; h < end; ++h) rounds = max_of(rounds, pieces_of(shared.touching[h]));
#pragma unroll 1
    for (int round = 0; round < rounds; ++round) {
      Load<kType, T> next;
      if (own < own_end)
        next.begin(job, bins, channels, grad, shared.rois[shared.listed[own]], piece_of(shared.touching[own], round));
      load_weights(job, bins, map, base, end, round, shared);
      __syncthreads();
      add_pieces(job, bins, channels, own, own_end, round, base, next, grad, shared, sum);
      __syncthreads();
    }
  }
}

// Adds the parts, in order, and stores them: neighbouring lanes neighbouring pixels, each warp some channels.
template <DType kType, class T>
__device__ void store_parts(const Job& job, const FeatureMap& map, const T (&sum)[kRows][kTile],
                            TileShared<T>& shared) {
  constexpr int kChannels = kLanes / kParts<T>;
  const int warp = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  const int groups = static_cast<int>(blockDim.x) / kLanes / kParts<T>, group = warp % groups;
#pragma unroll
  for (int i = 0; i < kRows * kTile; ++i) shared.grad[warp][lane][i] = sum[i / kTile][i % kTile];
  __syncthreads();
  const int64_t y = job.tile.y + lane / kTile, x = job.tile.x + lane % kTile;
  const int64_t at = job.tile.image * map.image_stride + y * map.y_stride + x * map.x_stride;
  if (y < map.height && x < map.width)
    for (int c = job.part * kChannels; c < min_of((job.part + 1) * kChannels, job.channels); ++c) {
      T total = shared.grad[group][c][lane];
      for (int p = 1; p < kParts<T>; ++p) total += shared.grad[p * groups + group][c][lane];
      store(map.data, kType, at + (job.first + c) * map.channel_stride, total);
    }
  __syncthreads();
}

// Block (tile, group of channels): see above. Warp: part, then 32 channels.
template <class T, DType kType>
__global__ void __launch_bounds__(TileShared<T>::kThreads, 2)
    backward_kernel(Features gradients, Rois rois, Bins bins, int64_t tiles, AlignLists<T> lists, const void* grad) {
  __shared__ TileShared<T> shared;
  const int warp = static_cast<int>(threadIdx.x) / kLanes;
  const int threads = static_cast<int>(blockDim.x), groups = threads / kLanes / kParts<T>;
  const int64_t channels = gradients.channels;
  for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
    Job job;
    job.tile = locate<kRows>(gradients, index), job.part = warp / groups;
    const FeatureMap& map = gradients.level[job.tile.level];
    const int64_t segment = job.tile.level * gradients.images + job.tile.image;
    const Range range = rois_of(rois, lists, segment);
    for (int64_t first = int64_t(blockIdx.y) * groups; first * kLanes < channels; first += gridDim.y * groups) {
      job.first = (first + warp % groups) * kLanes;
      job.channels = static_cast<int>(min_of<int64_t>(kLanes, channels - job.first));
      T sum[kRows][kTile] = {};
      for (int64_t chunk = range.begin; chunk < range.end; chunk += threads) {
        const int n = list_hits(job, gradients, rois, bins, lists, segment, chunk, range.end, shared);
        add_hits<kType>(job, bins, map, channels, grad, n, shared, sum);
      }
      store_parts<kType>(job, map, sum, shared);
    }
  }
}

template <class T>
struct AlignCut {
  int64_t tiles = 0, blocks;  // along the channels
  int threads;
  explicit AlignCut(const Features& gradients) {
    for (int l = 0; l < gradients.levels; ++l) tiles += tiles_of<kRows>(gradients.level[l]) * gradients.images;
    const int groups = static_cast<int>(min_of<int64_t>(blocks_of(gradients.channels, kLanes), kGroups<T>));
    blocks = groups == 0 ? 0 : blocks_of(gradients.channels, groups * kLanes);
    threads = kParts<T> * groups * kLanes;
  }
};

template <class T>
int align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients, void* workspace,
                   void* stream) {
  Workspace w(workspace);
  const AlignCut<T> cut(gradients);
  const AlignLists<T> lists(w, gradients, rois.count, cut.tiles * cut.blocks);
  BOXOPS_TRY(list_rois(gradients, rois, bins, lists, stream));
  return with_storage<T>(gradients.dtype, [&](auto type) {
    return launch(backward_kernel<T, type()>, dim3(grid_x(cut.tiles), grid_yz(cut.blocks)), cut.threads, stream,
                  gradients, rois, bins, cut.tiles, lists, grad);
  });
}

template <class T>
size_t align_backward_workspace(const Features& gradients, const Rois& rois) {
  Workspace w(nullptr);
  const AlignCut<T> cut(gradients);
  const AlignLists<T> lists(w, gradients, rois.count, cut.tiles * cut.blocks);
  return w.used();
}

}  // namespace
}  // namespace boxops::cuda
