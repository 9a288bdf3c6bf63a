#include <boxops/anchors.h>

#include <cmath>
#include <numeric>
#include <vector>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {
namespace {

std::string pair(const std::string& y, const std::string& x) { return "(" + y + ", " + x + ")"; }

void check_positive(const Call& call, const char* name, const std::vector<double>& values) {
  if (values.empty()) call.fail(std::string(name) + " with at least one number", "none");
  for (const double value : values)
    if (!(value > 0) || std::isinf(value)) call.fail(std::string(name) + " > 0 and finite", to_string(value));
}

void check_grid(const Call& call, const char* name, int64_t height, int64_t width) {
  if (height < 0 || width < 0)
    call.fail(std::string(name) + " = (height, width), both >= 0", pair(std::to_string(height), std::to_string(width)));
}

// How many rows the levels have together.
int64_t rows_of(const Call& call, const std::vector<AnchorLevel>& levels) {
  int64_t rows = 0;
  for (const AnchorLevel& level : levels) {
    int64_t cells = 0, more = 0;
    if (__builtin_mul_overflow(level.height, level.width, &cells) ||
        __builtin_mul_overflow(cells, level.count, &more) || __builtin_add_overflow(rows, more, &rows) ||
        rows >= int64_t(1) << 58)
      call.fail("fewer than 2^58 anchors", "more");
  }
  return rows;
}

Array anchors(const Call& call, const Array& like, const std::vector<AnchorLevel>& levels,
              const std::vector<double>& halves) {
  Array out = call.empty({rows_of(call, levels), 4}, like.dtype);
  const auto n_levels = static_cast<int64_t>(levels.size());
  call.run(
      [&](const Parallel& parallel) {
        cpu::anchors(levels.data(), n_levels, halves.data(), out.data, out.dtype, parallel);
      },
      [&](auto stream) { return cuda::anchors(levels.data(), n_levels, halves.data(), out.data, out.dtype, stream); });
  return out;
}

}  // namespace

Array multibox_anchors(Framework& framework, Array like, int64_t height, int64_t width, std::vector<double> sizes,
                       std::vector<double> aspect_ratios, bool normalized) {
  const Call call("multibox_anchors", framework, like.device);
  check_floating(call, "like", like);
  check_grid(call, "grid_size", height, width);
  check_positive(call, "sizes", sizes);
  check_positive(call, "aspect_ratios", aspect_ratios);
  const double h = static_cast<double>(height), unit_x = normalized ? static_cast<double>(width) : 1.0,
               unit_y = normalized ? h : 1.0;
  std::vector<double> halves;
  const auto add = [&](double size, double ratio) {  // width over height
    halves.push_back(size * std::sqrt(ratio) * h / unit_x / 2),
        halves.push_back(size / std::sqrt(ratio) * h / unit_y / 2);
  };
  for (const double size : sizes) add(size, 1 / aspect_ratios[0]);
  for (size_t i = 1; i < aspect_ratios.size(); ++i) add(sizes[0], 1 / aspect_ratios[i]);
  const auto count = static_cast<int64_t>(halves.size() / 2);
  return anchors(call, like, {{height, width, count, 1, 1, unit_x, unit_y, 0.5}}, halves);
}
BOXOPS_OP(multibox_anchors, "like", "height", "width", "sizes", "aspect_ratios", "normalized");

Array grid_anchors(Framework& framework, Array like, std::vector<int64_t> grid_sizes, std::vector<int64_t> strides,
                   std::vector<double> sizes, std::vector<int64_t> size_counts, std::vector<double> ratios,
                   std::vector<int64_t> ratio_counts) {
  const Call call("grid_anchors", framework, like.device);
  check_floating(call, "like", like);
  const size_t n = size_counts.size();
  const auto fits = [](const std::vector<int64_t>& counts, size_t total) {
    size_t sum = 0;
    for (const int64_t count : counts) {
      if (count < 0 || count > static_cast<int64_t>(total)) return false;
      sum += static_cast<size_t>(count);
    }
    return sum == total;
  };
  if (grid_sizes.size() != 2 * n || strides.size() != 2 * n || ratio_counts.size() != n ||
      !fits(size_counts, sizes.size()) || !fits(ratio_counts, ratios.size()))
    call.fail("grid_sizes, strides, sizes and aspect_ratios of the same levels", "lists that do not fit");
  check_positive(call, "sizes", sizes);
  check_positive(call, "aspect_ratios", ratios);
  std::vector<AnchorLevel> levels;
  std::vector<double> halves;
  const double *size = sizes.data(), *ratio = ratios.data();
  for (size_t l = 0; l < n; ++l) {
    const int64_t height = grid_sizes[2 * l], width = grid_sizes[2 * l + 1], y = strides[2 * l], x = strides[2 * l + 1];
    check_grid(call, "grid_sizes", height, width);
    if (y < 1 || x < 1) call.fail("strides >= 1", pair(std::to_string(y), std::to_string(x)));
    if (size_counts[l] == 0 || ratio_counts[l] == 0)
      call.fail("at least one size and one aspect ratio for every level", "none for level " + std::to_string(l));
    // torchvision's base anchors, in float for every dtype: rounded to integers, half to even.
    for (int64_t r = 0; r < ratio_counts[l]; ++r) {
      const float tall = std::sqrt(static_cast<float>(ratio[r])), wide = 1.0f / tall;
      for (int64_t s = 0; s < size_counts[l]; ++s) {
        const float scale = static_cast<float>(size[s]);
        halves.push_back(std::nearbyint(wide * scale / 2.0f)), halves.push_back(std::nearbyint(tall * scale / 2.0f));
      }
    }
    levels.push_back(
        {height, width, size_counts[l] * ratio_counts[l], static_cast<double>(x), static_cast<double>(y), 1, 1, 0});
    size += size_counts[l], ratio += ratio_counts[l];
  }
  return anchors(call, like, levels, halves);
}
BOXOPS_OP(grid_anchors, "like", "grid_sizes", "strides", "sizes", "size_counts", "aspect_ratios", "ratio_counts");

Array cell_anchors(Framework& framework, Array like, int64_t height, int64_t width, std::vector<double> priors,
                   double stride_y, double stride_x) {
  const Call call("cell_anchors", framework, like.device);
  check_floating(call, "like", like);
  check_grid(call, "grid_size", height, width);
  check_positive(call, "priors", priors);
  if (priors.size() % 2) call.fail("priors in (width, height) pairs", std::to_string(priors.size()) + " numbers");
  check_positive(call, "stride", {stride_y, stride_x});
  std::vector<double> halves;
  for (const double side : priors) halves.push_back(side / 2);
  const auto count = static_cast<int64_t>(priors.size() / 2);
  return anchors(call, like, {{height, width, count, stride_x, stride_y, 1, 1, 0.5}}, halves);
}
BOXOPS_OP(cell_anchors, "like", "height", "width", "priors", "stride_y", "stride_x");

}  // namespace boxops::ops
