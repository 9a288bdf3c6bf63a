#include <boxops/roi.h>

#include <cmath>
#include <functional>

#include <boxops/memory.h>
#include <boxops/ops.h>
#include "ops/check.h"
#include "roi/roi_bins.h"

namespace boxops::ops {
namespace {

constexpr int64_t kMaxBins = 1 << 15;          // along one axis
constexpr int64_t kMaxPlane = (1u << 31) - 1;  // pixels, so that an index fits int32

std::string pair(int64_t height, int64_t width) {
  return "(" + std::to_string(height) + ", " + std::to_string(width) + ")";
}

Bins check_bins(const char* op, int64_t height, int64_t width, int64_t sampling_ratio = 0, bool aligned = false) {
  if (height < 1 || width < 1 || height > kMaxBins || width > kMaxBins)
    fail(op, "output_size from 1 to " + std::to_string(kMaxBins), pair(height, width));
  if (sampling_ratio > kMaxSamples)
    fail(op, "sampling_ratio <= " + std::to_string(kMaxSamples), std::to_string(sampling_ratio));
  return {height, width, sampling_ratio, aligned};
}

void check_scale(const char* op, const char* name, double scale) {
  if (!(scale > 0 && std::isfinite(scale))) fail(op, std::string(name) + " > 0 and finite", to_string(scale));
}

Rois check_rois(const char* op, const Array& boxes, const std::optional<Array>& images, const char* of,
                const Array& features) {
  check_floating(op, "boxes", boxes);
  check_shape(op, "boxes", boxes, {-1, images ? 4 : 5}, images ? "[K, 4]" : "[K, 5]");
  check_device(op, "boxes", boxes, of, features);
  Rois rois{boxes.data, boxes.dtype, boxes.sizes[0], boxes.strides[0], boxes.strides[1], nullptr, DType::kInt64, 0};
  if (images) {
    check_per_box(op, "images", *images, boxes);
    if (!is_integer(images->dtype)) fail(op, "images of an integer type", name_of(images->dtype));
    rois.images = images->data, rois.images_dtype = images->dtype, rois.images_stride = images->strides[0];
    if (rois.images == nullptr) rois.images = boxes.data;  // an empty array may have no address
  }
  return rois;
}

// On the CPU only: what lies on a device is not waited for, and gives zeros.
void check_images(const char* op, const Array& boxes, const Rois& rois, int64_t images) {
  if (boxes.device.type != DeviceType::kCPU) return;
  if (rois.images == nullptr) {
    Array column = boxes;
    column.sizes = {rois.count}, column.strides = {rois.row_stride};
    check_whole(op, "image indices", column);
  }
  for (int64_t k = 0; k < rois.count; ++k)
    if (image_of(rois, k, images) < 0) {
      const std::string got =
          rois.images != nullptr ? std::to_string(load<int64_t>(rois.images, rois.images_dtype, k * rois.images_stride))
                                 : to_string(load<double>(rois.data, rois.dtype, k * rois.row_stride));
      fail(op, "image indices in [0, " + std::to_string(images) + ")", got + " at " + std::to_string(k));
    }
}

void check_plane(const char* op, const char* name, int64_t height, int64_t width) {
  if (height > kMaxPlane || width > kMaxPlane || height * width > kMaxPlane)
    fail(op, std::string(name) + " of fewer than 2^31 pixels per channel", pair(height, width));
}

FeatureMap view_map(const char* op, const char* name, const Array& input, double scale) {
  check_plane(op, name, input.sizes[2], input.sizes[3]);
  return {input.data,
          input.sizes[2],
          input.sizes[3],
          input.strides[0],
          input.strides[1],
          input.strides[2],
          input.strides[3],
          scale,
          0.0};
}

Features check_features(const char* op, const Array& input, double scale) {
  check_floating(op, "input", input);
  check_shape(op, "input", input, {-1, -1, -1, -1}, "[N, C, H, W]");
  check_scale(op, "spatial_scale", scale);
  return {input.dtype, input.sizes[0], input.sizes[1], 1, {view_map(op, "input", input, scale)}};
}

// Fills min_side: level k of a pyramid has k halvings; FPN's equation 1, with torchvision's 1e-6 against rounding.
void check_levels(const char* op, Features& features, const std::vector<double>& scales, double canonical_scale,
                  int64_t canonical_level) {
  if (scales.size() != static_cast<size_t>(features.levels))
    fail(op, "a scale for each of " + std::to_string(features.levels) + " features", std::to_string(scales.size()));
  if (!(canonical_scale > 0 && std::isfinite(canonical_scale)))
    fail(op, "canonical_scale > 0 and finite", to_string(canonical_scale));
  for (int l = 0; l < features.levels; ++l) {
    check_scale(op, "scales", scales[l]);
    if (l > 0 && !(scales[l] < scales[l - 1]))
      fail(op, "scales that fall from level to level", to_string(scales[l]) + " after " + to_string(scales[l - 1]));
    const double k = std::trunc(-std::log2(scales[l]));
    features.level[l].scale = scales[l];
    features.level[l].min_side = canonical_scale * std::exp2(k - static_cast<double>(canonical_level) - 1e-6);
  }
}

void check_level_count(const char* op, size_t count) {
  if (count < 1 || count > kMaxLevels)
    fail(op, "from 1 to " + std::to_string(kMaxLevels) + " features", std::to_string(count));
}

Features check_pyramid(const char* op, const std::vector<Array>& inputs, const std::vector<double>& scales,
                       double canonical_scale, int64_t canonical_level) {
  check_level_count(op, inputs.size());
  Features features = check_features(op, inputs[0], 1.0);
  for (size_t l = 1; l < inputs.size(); ++l) {
    const Array& input = inputs[l];
    if (input.dtype != inputs[0].dtype)
      fail(op, "features of one dtype", std::string(name_of(inputs[0].dtype)) + " and " + name_of(input.dtype));
    check_shape(op, "features", input, {inputs[0].sizes[0], inputs[0].sizes[1], -1, -1},
                ("[" + std::to_string(features.images) + ", " + std::to_string(features.channels) + ", H, W]").c_str());
    check_device(op, "features", input, "the first", inputs[0]);
    features.level[features.levels++] = view_map(op, "features", input, 1.0);
  }
  check_levels(op, features, scales, canonical_scale, canonical_level);
  return features;
}

// The gradients of features of these sizes, one after another in `out`, each contiguous.
struct Gradients {
  Features features;
  Array out;
};

Gradients empty_gradients(Framework& framework, const char* op, const Array& grad, int64_t images, int64_t channels,
                          const std::vector<int64_t>& heights, const std::vector<int64_t>& widths, double scale,
                          bool flat) {
  check_level_count(op, heights.size());
  if (widths.size() != heights.size())
    fail(op, std::to_string(heights.size()) + " widths", std::to_string(widths.size()));
  Gradients g{{grad.dtype, images, channels, static_cast<int>(heights.size()), {}}, {}};
  if (images < 0 || heights[0] < 0 || widths[0] < 0)
    fail(op, "sizes >= 0", to_string(Dims{images, channels, heights[0], widths[0]}));
  int64_t total = 0;
  for (size_t l = 0; l < heights.size(); ++l) {
    const int64_t h = heights[l], w = widths[l];
    if (h < 0 || w < 0) fail(op, "sizes >= 0", to_string(Dims{images, channels, h, w}));
    check_plane(op, "gradients", h, w);
    g.features.level[l] = {nullptr, h, w, channels * h * w, h * w, w, 1, scale, 0.0};
    total += images * channels * h * w;
  }
  g.out = framework.empty(flat ? Dims{total} : Dims{images, channels, heights[0], widths[0]}, grad.dtype, grad.device);
  char* at = g.out.as<char>();
  for (int l = 0; l < g.features.levels; ++l) {
    FeatureMap& map = g.features.level[l];
    map.data = at;
    at += images * map.image_stride * size_of(grad.dtype);
  }
  return g;
}

void check_grad(const char* op, const Array& grad, const Array& boxes) {
  check_floating(op, "grad", grad);
  check_shape(op, "grad", grad, {boxes.rank() > 0 ? boxes.sizes[0] : -1, -1, -1, -1}, "[K, C, PH, PW]");
}

int64_t channels_per_bin(const char* op, const Features& features, const Bins& bins) {
  const int64_t count = bins.height * bins.width;
  if (features.channels % count != 0)
    fail(op, "channels divisible by the number of bins, " + std::to_string(count), std::to_string(features.channels));
  return features.channels / count;
}

// A template, so that nothing refers to CUDA where no CUDA call is compiled.
template <class T>
Array backward_workspace(Framework& framework, const Array& on, const Features& gradients, const Rois& rois,
                         const Bins& bins) {
  const size_t bytes = cuda::roi_backward_workspace(gradients, rois, bins, sizeof(T) == 8);
  return framework.empty({static_cast<int64_t>(bytes)}, DType::kUInt8, on.device);
}

// The core's functions of a name, for any compute type.
#define KERNELS(function)                                                      \
  [](auto t, auto... arguments) { cpu::function<decltype(t)>(arguments...); }, \
      [](auto t, auto... arguments) { return cuda::function<decltype(t)>(arguments...); }

// Allocates the output and runs a forward function. The indices are looked at after the allocation, which fails at
// once for sizes that no memory holds.
template <class Cpu, class Cuda, class... More>
Array forward(Framework& framework, const char* op, const Array& boxes, const Array& input, const Features& features,
              const Rois& rois, const Bins& bins, int64_t channels, Cpu on_cpu, [[maybe_unused]] Cuda on_cuda,
              More... more) {
  Array out = framework.empty({rois.count, channels, bins.height, bins.width}, input.dtype, input.device);
  if (out.numel() == 0) return out;
  check_images(op, boxes, rois, features.images);
  with_compute_type(input.dtype, [&](auto t) {
    BOXOPS_DISPATCH(op, input.device,
                    on_cpu(t, std::cref(features), rois, bins, out.data, more..., std::cref(framework.parallel())),
                    on_cuda(t, std::cref(features), rois, bins, out.data, more..., framework.stream(input.device)));
  });
  return out;
}

template <class Cpu, class Cuda, class... More>
Array backward(Framework& framework, const char* op, const Array& boxes, const Array& grad, const Gradients& gradients,
               const Rois& rois, const Bins& bins, Cpu on_cpu, [[maybe_unused]] Cuda on_cuda, More... more) {
  if (gradients.out.numel() == 0) return gradients.out;
  check_images(op, boxes, rois, gradients.features.images);
  const Array dense = contiguous(framework, op, grad);
  with_compute_type(grad.dtype, [&](auto t) {
    BOXOPS_DISPATCH(
        op, grad.device,
        on_cpu(t, dense.data, more..., rois, bins, std::cref(gradients.features), std::cref(framework.parallel())),
        on_cuda(t, dense.data, more..., rois, bins, std::cref(gradients.features),
                backward_workspace<decltype(t)>(framework, grad, gradients.features, rois, bins).data,
                framework.stream(grad.device)));
  });
  return gradients.out;
}

}  // namespace

Array roi_align(Framework& framework, Array input, Array boxes, std::optional<Array> images, int64_t height,
                int64_t width, double spatial_scale, int64_t sampling_ratio, bool aligned) {
  const char* op = "roi_align";
  const Features features = check_features(op, input, spatial_scale);
  const Rois rois = check_rois(op, boxes, images, "input", input);
  const Bins bins = check_bins(op, height, width, sampling_ratio, aligned);
  return forward(framework, op, boxes, input, features, rois, bins, features.channels, KERNELS(roi_align));
}

Array multiscale_roi_align(Framework& framework, std::vector<Array> inputs, Array boxes, std::optional<Array> images,
                           int64_t height, int64_t width, std::vector<double> scales, int64_t sampling_ratio,
                           bool aligned, double canonical_scale, int64_t canonical_level) {
  const char* op = "multiscale_roi_align";
  const Features features = check_pyramid(op, inputs, scales, canonical_scale, canonical_level);
  const Rois rois = check_rois(op, boxes, images, "features", inputs[0]);
  const Bins bins = check_bins(op, height, width, sampling_ratio, aligned);
  return forward(framework, op, boxes, inputs[0], features, rois, bins, features.channels, KERNELS(roi_align));
}

Array ps_roi_align(Framework& framework, Array input, Array boxes, std::optional<Array> images, int64_t height,
                   int64_t width, double spatial_scale, int64_t sampling_ratio) {
  const char* op = "ps_roi_align";
  const Features features = check_features(op, input, spatial_scale);
  const Rois rois = check_rois(op, boxes, images, "input", input);
  const Bins bins = check_bins(op, height, width, sampling_ratio, true);
  return forward(framework, op, boxes, input, features, rois, bins, channels_per_bin(op, features, bins),
                 KERNELS(ps_roi_align));
}

Array ps_roi_pool(Framework& framework, Array input, Array boxes, std::optional<Array> images, int64_t height,
                  int64_t width, double spatial_scale) {
  const char* op = "ps_roi_pool";
  const Features features = check_features(op, input, spatial_scale);
  const Rois rois = check_rois(op, boxes, images, "input", input);
  const Bins bins = check_bins(op, height, width);
  return forward(framework, op, boxes, input, features, rois, bins, channels_per_bin(op, features, bins),
                 KERNELS(ps_roi_pool));
}

Array roi_pool(Framework& framework, Array input, Array boxes, std::optional<Array> images, int64_t height,
               int64_t width, double spatial_scale) {
  const char* op = "roi_pool";
  const Features features = check_features(op, input, spatial_scale);
  const Rois rois = check_rois(op, boxes, images, "input", input);
  const Bins bins = check_bins(op, height, width);
  int32_t* const none = nullptr;
  return forward(framework, op, boxes, input, features, rois, bins, features.channels, KERNELS(roi_pool), none);
}

std::tuple<Array, Array> roi_pool_with_argmax(Framework& framework, Array input, Array boxes,
                                              std::optional<Array> images, int64_t height, int64_t width,
                                              double spatial_scale) try {
  const char* op = "roi_pool";
  const Features features = check_features(op, input, spatial_scale);
  const Rois rois = check_rois(op, boxes, images, "input", input);
  const Bins bins = check_bins(op, height, width);
  const Array argmax = framework.empty({rois.count, features.channels, height, width}, DType::kInt32, input.device);
  return {forward(framework, op, boxes, input, features, rois, bins, features.channels, KERNELS(roi_pool),
                  argmax.as<int32_t>()),
          argmax};
} catch (...) {
  rethrow_named([] { return "roi_pool"; });
}

Array roi_align_backward(Framework& framework, Array grad, Array boxes, std::optional<Array> images, int64_t count,
                         int64_t height, int64_t width, double spatial_scale, int64_t sampling_ratio, bool aligned) {
  const char* op = "roi_align_backward";
  check_grad(op, grad, boxes);
  const Rois rois = check_rois(op, boxes, images, "grad", grad);
  const Bins bins = check_bins(op, grad.sizes[2], grad.sizes[3], sampling_ratio, aligned);
  check_scale(op, "spatial_scale", spatial_scale);
  const Gradients g =
      empty_gradients(framework, op, grad, count, grad.sizes[1], {height}, {width}, spatial_scale, false);
  return backward(framework, op, boxes, grad, g, rois, bins, KERNELS(roi_align_backward));
}

Array multiscale_roi_align_backward(Framework& framework, Array grad, Array boxes, std::optional<Array> images,
                                    int64_t count, std::vector<int64_t> heights, std::vector<int64_t> widths,
                                    std::vector<double> scales, int64_t sampling_ratio, bool aligned,
                                    double canonical_scale, int64_t canonical_level) {
  const char* op = "multiscale_roi_align_backward";
  check_grad(op, grad, boxes);
  const Rois rois = check_rois(op, boxes, images, "grad", grad);
  const Bins bins = check_bins(op, grad.sizes[2], grad.sizes[3], sampling_ratio, aligned);
  Gradients g = empty_gradients(framework, op, grad, count, grad.sizes[1], heights, widths, 1.0, true);
  check_levels(op, g.features, scales, canonical_scale, canonical_level);
  return backward(framework, op, boxes, grad, g, rois, bins, KERNELS(roi_align_backward));
}

Array ps_roi_align_backward(Framework& framework, Array grad, Array boxes, std::optional<Array> images, int64_t count,
                            int64_t height, int64_t width, double spatial_scale, int64_t sampling_ratio) {
  const char* op = "ps_roi_align_backward";
  check_grad(op, grad, boxes);
  const Rois rois = check_rois(op, boxes, images, "grad", grad);
  const Bins bins = check_bins(op, grad.sizes[2], grad.sizes[3], sampling_ratio, true);
  check_scale(op, "spatial_scale", spatial_scale);
  const int64_t channels = grad.sizes[1] * bins.height * bins.width;
  const Gradients g = empty_gradients(framework, op, grad, count, channels, {height}, {width}, spatial_scale, false);
  return backward(framework, op, boxes, grad, g, rois, bins, KERNELS(ps_roi_align_backward));
}

Array ps_roi_pool_backward(Framework& framework, Array grad, Array boxes, std::optional<Array> images, int64_t count,
                           int64_t height, int64_t width, double spatial_scale) {
  const char* op = "ps_roi_pool_backward";
  check_grad(op, grad, boxes);
  const Rois rois = check_rois(op, boxes, images, "grad", grad);
  const Bins bins = check_bins(op, grad.sizes[2], grad.sizes[3]);
  check_scale(op, "spatial_scale", spatial_scale);
  const int64_t channels = grad.sizes[1] * bins.height * bins.width;
  const Gradients g = empty_gradients(framework, op, grad, count, channels, {height}, {width}, spatial_scale, false);
  return backward(framework, op, boxes, grad, g, rois, bins, KERNELS(ps_roi_pool_backward));
}

Array roi_pool_backward(Framework& framework, Array grad, Array argmax, Array boxes, std::optional<Array> images,
                        int64_t count, int64_t height, int64_t width, double spatial_scale) {
  const char* op = "roi_pool_backward";
  check_grad(op, grad, boxes);
  const Rois rois = check_rois(op, boxes, images, "grad", grad);
  const Bins bins = check_bins(op, grad.sizes[2], grad.sizes[3]);
  check_scale(op, "spatial_scale", spatial_scale);
  if (argmax.dtype != DType::kInt32) fail(op, "argmax of dtype int32", name_of(argmax.dtype));
  check_shape(op, "argmax", argmax, grad.sizes, to_string(grad.sizes).c_str());
  check_device(op, "argmax", argmax, "grad", grad);
  const Gradients g =
      empty_gradients(framework, op, grad, count, grad.sizes[1], {height}, {width}, spatial_scale, false);
  const Array places = contiguous(framework, op, argmax);
  return backward(framework, op, boxes, grad, g, rois, bins, KERNELS(roi_pool_backward), places.as<int32_t>());
}

}  // namespace boxops::ops
