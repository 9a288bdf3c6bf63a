// The CPU kernels' loops over RoIs, pixels and channels: for_each_block of the forward kernels, for_each_band of the
// backward ones. Threads share (chunk of RoIs, block of channels), or (band of rows, block of channels).
#pragma once

#include "roi/roi_blocks.h"

namespace boxops::cpu {

// Memory of one thread.
template <class T>
struct BlockMemory {
  std::vector<T> pixels;  // [pixels][B]
  std::vector<int32_t> rows, columns;
  Offsets offsets;
  Tiles<T> tiles;
};

// RoIs of a group, as many as a thread takes at a time.
struct Chunk {
  const Group* group;
  int64_t begin, end;
};

// Enough of them, for each block of channels, to keep threads busy.
inline std::vector<Chunk> chunks_of(const Groups& groups, int64_t rois, int64_t blocks) {
  std::vector<Chunk> chunks;
  const int64_t length = std::max<int64_t>(64, blocks_of(rois * blocks, 16));
  for (const Group& group : groups.groups)
    for (int64_t i = 0; i < group.count; i += length) chunks.push_back({&group, i, std::min(i + length, group.count)});
  return chunks;
}

// What the RoIs of a chunk read.
enum class Source {
  kMap,         // the map, B channels of a pixel side by side
  kMapScalar,   // the map, one channel after another
  kHull,        // a copy of the hull of all their pixels
  kFootprints,  // a copy of each one's own pixels
};

// The cheapest, by how many pixels are read; sets the hull.
template <int B, class T, class Plan>
Source source_of(const Features& features, const FeatureMap& map, const std::vector<Plan>& plans, const Chunk& chunk,
                 int64_t channels, Hull* hull) {
  int64_t footprints = 0, work = 0;
  for (int64_t i = chunk.begin; i < chunk.end; ++i) {
    const Plan& plan = plans[chunk.group->rois[i]];
    hull->add(plan);
    footprints += plan.pixels(), work += plan.work;
  }
  const bool is_t = size_of(features.dtype) == sizeof(T);
  if (is_t && (B == 1 || (map.channel_stride == 1 && channels == B))) return Source::kMap;
  const int64_t pixels = hull->height() * hull->width(), copied = std::min(pixels, footprints);
  if (is_t && work < copied + work / 8) return Source::kMapScalar;
  return pixels <= footprints ? Source::kHull : Source::kFootprints;
}

// Calls rows() for each RoI of a chunk and one block of channels; see for_each_block.
template <int B, class T, class Plan, class Rows>
void read_chunk(const Features& features, const std::vector<Plan>& plans, const Chunk& chunk, int64_t first,
                BlockMemory<T>& memory, Rows& rows) {
  const int64_t channels = std::min<int64_t>(B, features.channels - first);
  const FeatureMap& map = features.level[chunk.group->level];
  const int64_t at = chunk.group->image * map.image_stride + first * map.channel_stride;
  auto& [pixels, hull_rows, hull_columns, offsets, tiles] = memory;
  Hull hull;
  const Source source = source_of<B, T>(features, map, plans, chunk, channels, &hull);
  with_storage<T>(features.dtype, [&](auto storage) {
    const auto* data = static_cast<decltype(storage)>(map.data) + at;
    if (source == Source::kHull) {
      fill_range(hull_rows, hull.top, hull.height());
      fill_range(hull_columns, hull.left, hull.width());
      pixels.resize(hull.height() * hull.width() * B);
      copy_block<B>(data, map, channels, hull_rows, hull_columns, pixels.data());
    }
    for (int64_t i = chunk.begin; i < chunk.end; ++i) {
      const int64_t k = chunk.group->rois[i];
      const Plan& plan = plans[k];
      const T* base = static_cast<const T*>(map.data) + at;
      if (source == Source::kHull) {
        offsets.set(plan, hull.top, hull.left, hull.width() * B, B);
        base = pixels.data();
      } else if (source == Source::kFootprints) {
        pixels.resize(plan.pixels() * B);
        copy_block<B>(data, map, channels, plan.rows, plan.columns, pixels.data());
        offsets.set_dense(plan, B);
        base = pixels.data();
      } else {
        offsets.set(plan, 0, 0, map.y_stride, map.x_stride);
      }
      if (source == Source::kMapScalar)
        for (int64_t c = 0; c < channels; ++c)
          rows(std::integral_constant<int, 1>(), plan, offsets, base + c * map.channel_stride, k, first + c, 1, tiles);
      else rows(std::integral_constant<int, B>(), plan, offsets, base, k, first, channels, tiles);
    }
  });
}

// Runs a forward kernel over all RoIs and blocks of channels. For each RoI it calls
//   rows(B, plan, offsets, pixels, k, first channel, channels, tiles)
// with B as a constant, where `pixels` at offsets.rows[i] + offsets.columns[j] has B channels of the footprint's pixel
// (i, j). Plans are Footprints.
template <class T, class Plan, class Rows>
void for_each_block(const Features& features, const Rois& rois, const Groups& groups, const std::vector<Plan>& plans,
                    const Parallel& parallel, Rows&& rows) {
  with_block<T>(features.channels, [&](auto block) {
    constexpr int B = decltype(block)::value;
    const int64_t blocks = blocks_of(features.channels, B);
    const std::vector<Chunk> chunks = chunks_of(groups, rois.count, blocks);
    int64_t work = 0;
    for (const Plan& plan : plans) work += plan.work;
    const int64_t items = static_cast<int64_t>(chunks.size()) * blocks;
    const double ns = (B == 1 ? kPixelNs : kVectorPixelNs) * work * features.channels;
    parallel.share(items, ns / std::max<int64_t>(items, 1), [&](int64_t begin, int64_t end) {
      BlockMemory<T> memory;
      for (int64_t item = begin; item < end; ++item)
        read_chunk<B>(features, plans, chunks[item / blocks], item % blocks * B, memory, rows);
    });
  });
}

// Rows of a map.
struct Band {
  const Group* group;
  int64_t top, bottom;
};

// Of all maps, so that a band's block of channels stays in the second-level cache.
inline std::vector<Band> bands_of(const Features& gradients, const Groups& groups, int64_t pixel_bytes) {
  std::vector<Band> bands;
  for (const Group& group : groups.groups) {
    const FeatureMap& map = gradients.level[group.level];
    const int64_t rows = std::max<int64_t>(1, (1 << 19) / pixel_bytes / std::max<int64_t>(map.width, 1));
    for (int64_t y = 0; y < map.height; y += rows) bands.push_back({&group, y, std::min(y + rows, map.height)});
  }
  return bands;
}

// Calls add() for each RoI that touches the band, with one block of channels, and writes it; see for_each_band.
template <int B, class T, class Plan, class Add>
void add_band(const Features& gradients, const std::vector<Plan>& plans, const Band& band, int64_t first,
              BlockMemory<T>& memory, Add& add) {
  const int64_t channels = std::min<int64_t>(B, gradients.channels - first);
  const FeatureMap& map = gradients.level[band.group->level];
  auto& pixels = memory.pixels;
  Hull hull;
  for (int64_t i = 0; i < band.group->count; ++i) hull.add(plans[band.group->rois[i]]);
  hull.top = std::max<int64_t>(hull.top, band.top), hull.bottom = std::min<int64_t>(hull.bottom, band.bottom - 1);
  pixels.assign(hull.height() * hull.width() * B, T(0));
  for (int64_t i = 0; i < band.group->count && !pixels.empty(); ++i) {
    const int64_t k = band.group->rois[i];
    const Plan& plan = plans[k];
    if (plan.pixels() == 0 || plan.rows.front() > hull.bottom || plan.rows.back() < hull.top) continue;
    memory.offsets.set(plan, hull.top, hull.left, hull.width() * B, B);
    for (size_t r = 0; r < memory.offsets.rows.size(); ++r)
      if (plan.rows[r] > hull.bottom) memory.offsets.rows[r] = -1;
    add(std::integral_constant<int, B>(), plan, memory.offsets, pixels.data(), k, first, channels, memory.tiles);
  }
  with_storage<T>(gradients.dtype, [&](auto storage) {
    using S = std::remove_pointer_t<decltype(storage)>;
    S* out = static_cast<S*>(map.data) + band.group->image * map.image_stride + first * map.channel_stride;
    for (int64_t c = 0; c < channels; ++c) {
      S* plane = out + c * map.channel_stride;
      std::fill(plane + band.top * map.width, plane + band.bottom * map.width, S(T(0)));
    }
    for (int64_t y = 0; y < hull.height() && !pixels.empty(); ++y)
      store_tile<B>(pixels.data() + y * hull.width() * B, hull.width(), channels,
                    out + (hull.top + y) * map.width + hull.left, map.channel_stride);
  });
}

// Runs a backward kernel over all maps, in bands of rows, and blocks of channels. For each RoI that touches the band,
// in order, it calls
//   add(B, plan, offsets, pixels, k, first channel, channels, tiles)
// where rows outside of the band have a negative offset; then it writes the band, once.
template <class T, class Plan, class Add>
void for_each_band(const Features& gradients, const Groups& groups, const std::vector<Plan>& plans,
                   const Parallel& parallel, Add&& add) {
  with_block<T>(gradients.channels, [&](auto block) {
    constexpr int B = decltype(block)::value;
    const int64_t blocks = blocks_of(gradients.channels, B);
    const std::vector<Band> bands = bands_of(gradients, groups, sizeof(T) * B);
    int64_t work = 0;
    for (const Plan& plan : plans) work += plan.work;
    for (const Band& band : bands) work += (band.bottom - band.top) * gradients.level[band.group->level].width;
    const int64_t items = static_cast<int64_t>(bands.size()) * blocks;
    const double ns = (B == 1 ? kPixelNs : kVectorPixelNs) * work * gradients.channels;
    parallel.share(items, ns / std::max<int64_t>(items, 1), [&](int64_t begin, int64_t end) {
      BlockMemory<T> memory;
      for (int64_t item = begin; item < end; ++item)
        add_band<B>(gradients, plans, bands[item / blocks], item % blocks * B, memory, add);
    });
  });
}

}  // namespace boxops::cpu
