// The backward kernel of all but roi_pool: deterministic without atomics, because each gradient is gathered by one
// thread.
//
// A block owns a tile of one image's gradient: kTile x kTile pixels of 32 channels. Warp w owns row w, lane c channel
// c, and a thread keeps its kTile sums in registers. The block walks the RoIs of its level and image in their order,
// and of those that touch the tile only the bins that touch it: their gradients go through shared memory (read as lines
// along the bins, used with lanes along the channels), beside the weights that each bin gives the tile's rows and
// columns. All lanes of a warp share the weights, so nothing diverges and only pixels that a bin touches cost anything.
// Position-sensitive pooling is the same with one bin (and the channels that belong to it) per block.
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

namespace boxops::cuda {
namespace {

constexpr int kTile = 8, kLanes = 32, kTileThreads = kTile * kLanes;
template <class T>
constexpr int kTileBlocks = sizeof(T) == 8 ? 2 : 3;  // of an SM: caps the registers at 128 or 80
constexpr int kSpan = 16;                            // bins of a piece along one axis, at most
constexpr int kPiece = 49;                           // bins of a piece; odd, so that lanes read from different banks
constexpr int kParts = 4, kTurn = 4;                 // few tiles are cut into parts, which take turns of kTurn RoIs

// Pieces in shared memory at a time; with position-sensitive pooling a piece is one bin.
template <Pooling pooling, class T>
constexpr int kPieces = is_sensitive(pooling) ? 16
                        : sizeof(T) == 8      ? 2
                                              : 4;

// A superset of the bins that touch pixels [low, low + kTile).
template <class T>
__device__ Steps bins_touching(const AlignAxis<T>& axis, int bins, int low) {
  if (axis.samples == 0) return {0, 0};
  return steps_within(axis.start, axis.bin, bins, static_cast<T>(low - 1), static_cast<T>(low) + T(kTile));
}
template <class T>
__device__ Steps bins_touching(const PoolAxis& axis, int bins, int low) {
  if (axis.length == 0) return {0, 0};
  return steps_within(static_cast<T>(axis.start), static_cast<T>(axis.length) / static_cast<T>(bins), bins,
                      static_cast<T>(low - 1), static_cast<T>(low) + T(kTile));
}

// What bin p gives the pixels [low, low + kTile): sets weight[i] and returns a bit for each that it touches.
template <Pooling pooling, class T>
__device__ unsigned tile_weights(const AlignAxis<T>& axis, int p, int64_t, int64_t extent, int low, T factor,
                                 T* weight) {
#pragma unroll
  for (int i = 0; i < kTile; ++i) weight[i] = T(0);
  const Steps near = samples_within(axis, p, static_cast<T>(low - 1), static_cast<T>(low) + T(kTile));
  unsigned touched = 0;
#pragma unroll 1
  for (int i = near.begin; i < near.end; ++i) {
    Sample<T> s;
    if (!sample_at(axis, p, i, extent, &s)) continue;
    const int at = s.low - low, next = s.high - low;
    if (at >= 0 && at < kTile) weight[at] += s.low_weight * factor, touched |= 1u << at;
    if (next >= 0 && next < kTile) weight[next] += s.high_weight * factor, touched |= 1u << next;
  }
  return touched;
}
template <Pooling pooling, class T>
__device__ unsigned tile_weights(const PoolAxis& axis, int p, int64_t bins, int64_t extent, int low, T, T* weight) {
  const Steps range = range_of<pooling, T>(axis, p, bins, extent);
  unsigned touched = 0;
  for (int i = 0; i < kTile; ++i) {
    const bool inside = low + i >= range.begin && low + i < range.end;
    weight[i] = static_cast<T>(inside);
    touched |= static_cast<unsigned>(inside) << i;
  }
  return touched;
}

// The bins of a RoI that touch the tile, and how they are cut into pieces.
struct Hit {
  int64_t roi;
  int offset;                // of its place, from the first of the chunk
  Steps y, x;                // its bins
  int rows, across, pieces;  // bins along y in a piece; pieces along x, and in all
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

// Adds a piece to a thread's row of sums: its bins along y first, four at a time, then spread along x. `rows` are those
// that touch the row, with weights y[.][row]; grad is the thread's channel. A pixel that a bin does not touch has
// weight 0, which only a finite gradient may be multiplied with.
template <class T>
__device__ void add_piece(unsigned rows, int columns, int row, const T* grad, const T (*y)[kTile], const T (*x)[kTile],
                          const uint8_t* touched, T (&sum)[kTile]) {
  constexpr int kRows = 4;
#pragma unroll 1
  while (rows != 0) {
    const int some = __popc(rows);
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
        if (r < some) g = std::fma(weight[r], grad[at[r] + q], g);
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

struct Tile {
  int level, y, x;
  int64_t image;
};

inline int64_t tiles_of(const FeatureMap& m) { return blocks_of(m.height, kTile) * blocks_of(m.width, kTile); }

__device__ Tile locate(const Features& gradients, int64_t i) {
  for (int level = 0;; ++level) {
    const FeatureMap& m = gradients.level[level];
    const int64_t rows = blocks_of(m.height, kTile), columns = blocks_of(m.width, kTile);
    const int64_t here = rows * columns * gradients.images;
    if (i < here || level + 1 == gradients.levels)
      return {level, static_cast<int>(i / columns % rows) * kTile, static_cast<int>(i % columns) * kTile,
              i / columns / rows};
    i -= here;
  }
}

// Of the first n RoIs that touch a tile, how many are those of this part.
__device__ int share_of(int n, int part, int parts) {
  return n / (kTurn * parts) * kTurn + max_of(min_of(n % (kTurn * parts) - part * kTurn, kTurn), 0);
}

// Block (tile, group, part): see above. `channels` are grad's; with position-sensitive pooling a group belongs to one
// bin. Where there are parts, sums[part] takes the gradients' place.
template <Pooling pooling, class T, DType kType>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks<T>)
    backward_kernel(Features gradients, Bins bins, int64_t channels, int64_t tiles, Lists<pooling, T> lists,
                    const void* grad, T* sums) {
  constexpr int kAtOnce = kPieces<pooling, T>, kBins = is_sensitive(pooling) ? 1 : kPiece;
  constexpr int kAlong = is_sensitive(pooling) ? 1 : kSpan;
  constexpr int kTurned = kTile * kTile * (kLanes + 1), kStaged = kAtOnce * kLanes * kBins;
  __shared__ T staged[kStaged > kTurned ? kStaged : kTurned];
  alignas(16) __shared__ T weights[kAtOnce][2][kAlong][kTile];
  __shared__ uint8_t touched[kAtOnce][2][kAlong];
  __shared__ Hit hits[kTileThreads];
  __shared__ int found[kTile];
  const int t = static_cast<int>(threadIdx.x), warp = t / kLanes, lane = t % kLanes;
  const int height = static_cast<int>(bins.height), width = static_cast<int>(bins.width);
  const int64_t area = bins.height * bins.width, across = blocks_of(channels, kLanes);
  const int64_t groups = is_sensitive(pooling) ? area * across : across;
  const int part = static_cast<int>(blockIdx.z), parts = static_cast<int>(gridDim.z);

  for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
    const Tile tile = locate(gradients, index);
    const FeatureMap& map = gradients.level[tile.level];
    const int64_t segment = tile.level * gradients.images + tile.image;
    const int64_t begin = lists.begin[segment], end = lists.begin[segment + 1];
    for (int64_t group = blockIdx.y; group < groups; group += gridDim.y) {
      const int64_t only = group / across, first = group % across * kLanes;  // the one bin; the first channel
      const int live = static_cast<int>(min_of<int64_t>(kLanes, channels - first));
      T sum[kTile] = {};
      int before = 0;  // RoIs that touch the tile, in the chunks before
      for (int64_t chunk = begin; chunk < end; chunk += kTileThreads) {
        // A thread looks whether one RoI touches the tile; those that do are listed in their order.
        Hit hit = {0, t, {0, 0}, {0, 0}, 0, 0, 0};
        if (chunk + t < end) {
          const Place<pooling, T> at = lists.places[chunk + t];
          hit.y = bins_touching<T>(at.y, height, tile.y), hit.x = bins_touching<T>(at.x, width, tile.x);
          if constexpr (is_sensitive(pooling)) {
            const int p = static_cast<int>(only / width), q = static_cast<int>(only % width);
            hit.y = p >= hit.y.begin && p < hit.y.end ? Steps{p, p + 1} : Steps{0, 0};
            hit.x = q >= hit.x.begin && q < hit.x.end ? Steps{q, q + 1} : Steps{0, 0};
          }
        }
        const bool hits_tile = hit.y.begin < hit.y.end && hit.x.begin < hit.x.end;
        const unsigned ballot = __ballot_sync(kFullMask, hits_tile);
        if (lane == 0) found[warp] = __popc(ballot);
        __syncthreads();
        int place = before + __popc(ballot & ((1u << lane) - 1)), all = before;
        for (int w = 0; w < kTile; ++w) {
          if (w < warp) place += found[w];
          all += found[w];
        }
        const int listed = share_of(before, part, parts), total = share_of(all, part, parts) - listed;
        before = all;
        if (hits_tile && place / kTurn % parts == part) {
          hit.roi = lists.order[chunk + t];
          hit.rows = min_of(kSpan, kPiece / min_of(kSpan, hit.x.end - hit.x.begin));
          hit.across = (hit.x.end - hit.x.begin + kSpan - 1) / kSpan;
          hit.pieces = (hit.y.end - hit.y.begin + hit.rows - 1) / hit.rows * hit.across;
          hits[share_of(place, part, parts) - listed] = hit;
        }
        __syncthreads();

        for (int h = 0; h < total; h += kAtOnce) {
          const int some = min_of(kAtOnce, total - h);
          int rounds = 1;
          for (int s = 0; s < some; ++s) rounds = max_of(rounds, hits[h + s].pieces);
          for (int round = 0; round < rounds; ++round) {
            // A thread: the weights of one bin of one piece along one axis.
            if (t < some * 2 * kAlong) {
              const int s = t / (2 * kAlong), axis = t / kAlong % 2, b = t % kAlong;
              const Piece piece = piece_of(hits[h + s], round);
              const Place<pooling, T> at = lists.places[chunk + hits[h + s].offset];
              const bool is_y = axis == 0;
              T factor = T(1);
              if constexpr (is_align(pooling))
                if (is_y) factor /= static_cast<T>(sample_count(at.y.samples, at.x.samples));
              if (b < (is_y ? piece.rows : piece.columns))
                touched[s][axis][b] = static_cast<uint8_t>(tile_weights<pooling, T>(
                    is_y ? at.y : at.x, (is_y ? piece.p : piece.q) + b, is_y ? bins.height : bins.width,
                    is_y ? map.height : map.width, is_y ? tile.y : tile.x, factor, weights[s][axis][b]));
            }
            if constexpr (is_sensitive(pooling)) {
              // A warp: the gradients of one bin, lanes along the channels.
              for (int s = warp; s < some; s += kTile) {
                if (lane >= live) continue;
                T g = load<T>(grad, kType, (hits[h + s].roi * channels + first + lane) * area + only);
                if constexpr (pooling == Pooling::kSensitiveMean) {
                  const Place<pooling, T> at = lists.places[chunk + hits[h + s].offset];
                  const Steps y = range_of<pooling, T>(at.y, hits[h + s].y.begin, bins.height, map.height);
                  const Steps x = range_of<pooling, T>(at.x, hits[h + s].x.begin, bins.width, map.width);
                  g = g / (static_cast<T>(y.end - y.begin) * static_cast<T>(x.end - x.begin));
                }
                staged[s * kLanes + lane] = g;
              }
            } else if (const int s = warp % kAtOnce; s < some) {
              // A warp: the gradients of some channels of one piece, lanes along the bins; all loads before the first
              // use.
              constexpr int kStep = kTile / kAtOnce, kLoads = 8;
              const Piece piece = piece_of(hits[h + s], round);
              const int64_t base = (hits[h + s].roi * channels + first) * area;
              T* to = staged + s * kLanes * kBins;
              const int many = piece.rows * piece.columns;
#pragma unroll 1
              for (int i = lane; i < many; i += kLanes) {
                const int p = i / piece.columns, q = i - p * piece.columns;
                const int64_t at = base + (int64_t(piece.p + p) * width + piece.q + q);
#pragma unroll 1
                for (int channel = warp / kAtOnce; channel < live; channel += kStep * kLoads) {
                  T g[kLoads];
#pragma unroll
                  for (int c = 0; c < kLoads; ++c)
                    if (channel + c * kStep < live) g[c] = load<T>(grad, kType, at + (channel + c * kStep) * area);
#pragma unroll
                  for (int c = 0; c < kLoads; ++c)
                    if (channel + c * kStep < live) to[(channel + c * kStep) * kBins + i] = g[c];
                }
              }
            }
            __syncthreads();
#pragma unroll 1
            for (int s = 0; s < some; ++s) {
              const Piece piece = piece_of(hits[h + s], round);
              const unsigned rows =  // bins along y that touch its row
                  __ballot_sync(kFullMask, lane < piece.rows && (touched[s][0][lane] >> warp & 1));
              if (rows != 0 && lane < live)
                add_piece(rows, piece.columns, warp, staged + (s * kLanes + lane) * kBins, weights[s][0], weights[s][1],
                          touched[s][1], sum);
            }
            __syncthreads();
          }
        }
      }

      // Through shared memory, so that neighbouring threads store neighbouring pixels.
      for (int x = 0; x < kTile; ++x) staged[(warp * kTile + x) * (kLanes + 1) + lane] = sum[x];
      __syncthreads();
      for (int i = t; i < live * kTile * kTile; i += kTileThreads) {
        const int channel = i / (kTile * kTile), cell = i % (kTile * kTile);
        const int64_t y = tile.y + cell / kTile, x = tile.x + cell % kTile;
        const int64_t to = is_sensitive(pooling) ? (first + channel) * area + only : first + channel;
        if (y >= map.height || x >= map.width) continue;
        const T value = staged[cell * (kLanes + 1) + channel];
        const int64_t at =
            tile.image * map.image_stride + to * map.channel_stride + y * map.y_stride + x * map.x_stride;
        if (sums != nullptr) sums[part * gradients.images * map.image_stride + at] = value;
        else store(map.data, kType, at, value);
      }
      __syncthreads();
    }
  }
}

// A thread adds the parts of one number.
template <class T, DType kType>
__global__ void __launch_bounds__(kTileThreads) add_parts_kernel(const T* sums, int64_t count, void* out) {
  for (const int64_t i : grid_stride<kTileThreads>(count)) {
    T part[kParts];
#pragma unroll
    for (int p = 0; p < kParts; ++p) part[p] = sums[p * count + i];
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
  size_t bytes;
  const Lists<pooling, T> lists = carve<pooling, T>(workspace, gradients, rois.count, &bytes);
  BOXOPS_TRY(list_rois(gradients, rois, bins, lists, stream));
  const Cut cut = cut_of<pooling>(gradients, rois, bins);
  T* sums = cut.parts > 1 ? reinterpret_cast<T*>(static_cast<char*>(workspace) + bytes) : nullptr;
  return with_storage<T>(gradients.dtype, [&](auto type) {
    const dim3 grid(grid_x(cut.tiles), grid_yz(cut.groups), static_cast<unsigned>(cut.parts));
    BOXOPS_TRY(launch(backward_kernel<pooling, T, type()>, grid, kTileThreads, stream, gradients, bins, cut.channels,
                      cut.tiles, lists, grad, sums));
    if (sums == nullptr) return static_cast<int>(cudaSuccess);
    return launch(add_parts_kernel<T, type()>, grid_x(blocks_of(cut.count, kTileThreads)), kTileThreads, stream, sums,
                  cut.count, gradients.level[0].data);
  });
}

template <Pooling pooling, class T>
size_t backward_workspace(const Features& gradients, const Rois& rois, const Bins& bins) {
  size_t bytes;
  carve<pooling, T>(nullptr, gradients, rois.count, &bytes);
  const Cut cut = cut_of<pooling>(gradients, rois, bins);
  return bytes + (cut.parts > 1 ? cut.parts * cut.count * sizeof(T) : 0);
}

}  // namespace
}  // namespace boxops::cuda
