#include <boxops/roi.h>

#include <cmath>

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

Bins check_bins(const Call& call, int64_t height, int64_t width, int64_t sampling_ratio = 0, bool aligned = false) {
  if (height < 1 || width < 1 || height > kMaxBins || width > kMaxBins)
    call.fail("output_size from 1 to " + std::to_string(kMaxBins), pair(height, width));
  if (sampling_ratio > kMaxSamples)
    call.fail("sampling_ratio <= " + std::to_string(kMaxSamples), std::to_string(sampling_ratio));
  return {height, width, sampling_ratio, aligned};
}

void check_scale(const Call& call, const char* name, double scale) {
  if (!(scale > 0 && std::isfinite(scale))) call.fail(std::string(name) + " > 0 and finite", to_string(scale));
}

Rois check_rois(const Call& call, const Array& boxes, const char* of) {
  check_floating(call, "boxes", boxes);
  check_shape(call, "boxes", boxes, {-1, 5}, "[K, 5]");
  check_device(call, "boxes", boxes, of);
  return {boxes.data, boxes.dtype, boxes.sizes[0], boxes.strides[0], boxes.strides[1]};
}

// On the CPU only: what lies on a device is not waited for, and gives zeros.
void check_images(const Call& call, const Array& boxes, const Rois& rois, int64_t images) {
  if (!call.on_cpu()) return;
  Array column = boxes;
  column.sizes = {rois.count}, column.strides = {rois.row_stride};
  check_whole(call, "image indices", column);
  for (int64_t k = 0; k < rois.count; ++k)
    if (image_of(rois, k, images) < 0)
      call.fail("image indices in [0, " + std::to_string(images) + ")",
                to_string(load<double>(rois.data, rois.dtype, k * rois.row_stride)) + " at " + std::to_string(k));
}

void check_plane(const Call& call, const char* name, int64_t height, int64_t width) {
  if (height > kMaxPlane || width > kMaxPlane || height * width > kMaxPlane)
    call.fail(std::string(name) + " of fewer than 2^31 pixels per channel", pair(height, width));
}

FeatureMap view_map(const Call& call, const char* name, const Array& input, double scale) {
  check_plane(call, name, input.sizes[2], input.sizes[3]);
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

Features check_features(const Call& call, const Array& input, double scale) {
  check_floating(call, "input", input);
  check_shape(call, "input", input, {-1, -1, -1, -1}, "[N, C, H, W]");
  check_scale(call, "spatial_scale", scale);
  return {input.dtype, input.sizes[0], input.sizes[1], 1, {view_map(call, "input", input, scale)}};
}

// Fills min_side: level k of a pyramid has k halvings; FPN's equation 1, with torchvision's 1e-6 against rounding.
void check_levels(const Call& call, Features& features, const std::vector<double>& scales, double canonical_scale,
                  int64_t canonical_level) {
  if (scales.size() != static_cast<size_t>(features.levels))
    call.fail("a scale for each of " + std::to_string(features.levels) + " features", std::to_string(scales.size()));
  if (!(canonical_scale > 0 && std::isfinite(canonical_scale)))
    call.fail("canonical_scale > 0 and finite", to_string(canonical_scale));
  for (int l = 0; l < features.levels; ++l) {
    check_scale(call, "scales", scales[l]);
    if (l > 0 && !(scales[l] < scales[l - 1]))
      call.fail("scales that fall from level to level", to_string(scales[l]) + " after " + to_string(scales[l - 1]));
    const double k = std::trunc(-std::log2(scales[l]));
    features.level[l].scale = scales[l];
    features.level[l].min_side = canonical_scale * std::exp2(k - static_cast<double>(canonical_level) - 1e-6);
  }
}

void check_level_count(const Call& call, size_t count) {
  if (count < 1 || count > kMaxLevels)
    call.fail("from 1 to " + std::to_string(kMaxLevels) + " features", std::to_string(count));
}

Features check_pyramid(const Call& call, const std::vector<Array>& inputs, const std::vector<double>& scales,
                       double canonical_scale, int64_t canonical_level) {
  check_level_count(call, inputs.size());
  Features features = check_features(call, inputs[0], 1.0);
  for (size_t l = 1; l < inputs.size(); ++l) {
    const Array& input = inputs[l];
    if (input.dtype != inputs[0].dtype)
      call.fail("features of one dtype", std::string(name_of(inputs[0].dtype)) + " and " + name_of(input.dtype));
    check_shape(call, "features", input, {inputs[0].sizes[0], inputs[0].sizes[1], -1, -1},
                ("[" + std::to_string(features.images) + ", " + std::to_string(features.channels) + ", H, W]").c_str());
    check_device(call, "features", input, "the first");
    features.level[features.levels++] = view_map(call, "features", input, 1.0);
  }
  check_levels(call, features, scales, canonical_scale, canonical_level);
  return features;
}

// The gradients of features of these sizes, one after another in `out`, each contiguous.
struct Gradients {
  Features features;
  Array out;
};

Gradients empty_gradients(const Call& call, const Array& grad, int64_t images, int64_t channels,
                          const std::vector<int64_t>& heights, const std::vector<int64_t>& widths, double scale,
                          bool flat) {
  check_level_count(call, heights.size());
  if (widths.size() != heights.size())
    call.fail(std::to_string(heights.size()) + " widths", std::to_string(widths.size()));
  Gradients g{{grad.dtype, images, channels, static_cast<int>(heights.size()), {}}, {}};
  if (images < 0 || heights[0] < 0 || widths[0] < 0)
    call.fail("sizes >= 0", to_string(Dims{images, channels, heights[0], widths[0]}));
  int64_t total = 0;
  for (size_t l = 0; l < heights.size(); ++l) {
    const int64_t h = heights[l], w = widths[l];
    if (h < 0 || w < 0) call.fail("sizes >= 0", to_string(Dims{images, channels, h, w}));
    check_plane(call, "gradients", h, w);
    g.features.level[l] = {nullptr, h, w, channels * h * w, h * w, w, 1, scale, 0.0};
    total += images * channels * h * w;
  }
  g.out = call.empty(flat ? Dims{total} : Dims{images, channels, heights[0], widths[0]}, grad.dtype);
  char* at = g.out.as<char>();
  for (int l = 0; l < g.features.levels; ++l) {
    FeatureMap& map = g.features.level[l];
    map.data = at;
    at += images * map.image_stride * size_of(grad.dtype);
  }
  return g;
}

void check_grad(const Call& call, const Array& grad, const Array& boxes) {
  check_floating(call, "grad", grad);
  check_shape(call, "grad", grad, {boxes.rank() > 0 ? boxes.sizes[0] : -1, -1, -1, -1}, "[K, C, PH, PW]");
}

int64_t channels_per_bin(const Call& call, const Features& features, const Bins& bins) {
  const int64_t count = bins.height * bins.width;
  if (features.channels % count != 0)
    call.fail("channels divisible by the number of bins, " + std::to_string(count), std::to_string(features.channels));
  return features.channels / count;
}

// The core's functions of a name; those for CUDA as generic lambdas, see Call::run.
#define KERNELS(function)                                        \
  [](const auto&... arguments) { cpu::function(arguments...); }, \
      [](const auto&... arguments) { return cuda::function(arguments...); }

// Allocates the output and runs a forward function. The indices are looked at after the allocation, which fails at
// once for sizes that no memory holds.
template <class Cpu, class Cuda, class... More>
Array forward(const Call& call, const Array& boxes, DType dtype, const Features& features, const Rois& rois,
              const Bins& bins, int64_t channels, Cpu on_cpu, [[maybe_unused]] Cuda on_cuda, More... more) {
  Array out = call.empty({rois.count, channels, bins.height, bins.width}, dtype);
  if (out.numel() == 0) return out;
  check_images(call, boxes, rois, features.images);
  call.run([&](const Parallel& parallel) { on_cpu(features, rois, bins, out.data, more..., parallel); },
           [&](auto stream) { return on_cuda(features, rois, bins, out.data, more..., stream); });
  return out;
}

template <class Cpu, class Cuda, class... More>
Array backward(const Call& call, const Array& boxes, const Array& grad, const Gradients& gradients, const Rois& rois,
               const Bins& bins, Cpu on_cpu, [[maybe_unused]] Cuda on_cuda, More... more) {
  if (gradients.out.numel() == 0) return gradients.out;
  check_images(call, boxes, rois, gradients.features.images);
  const Array dense = contiguous(call, grad);
  call.run([&](const Parallel& parallel) { on_cpu(dense.data, more..., rois, bins, gradients.features, parallel); },
           [&](auto stream) {
             const size_t bytes = cuda::roi_backward_workspace(gradients.features, rois, bins);
             const Array workspace = bytes > 0 ? call.workspace(bytes) : Array();
             return on_cuda(dense.data, more..., rois, bins, gradients.features, workspace.data, stream);
           });
  return gradients.out;
}

}  // namespace

Array boxes_to_rois(Framework& framework, Array input, std::vector<Array> boxes, Pooling pooling) {
  const Call call(kNames<Pooling>[static_cast<size_t>(pooling)], framework, input.device);
  const auto images = static_cast<int64_t>(boxes.size());
  if (input.rank() == 4 && images != input.sizes[0])
    call.fail("boxes of " + std::to_string(input.sizes[0]) + " images", std::to_string(images));
  DType dtype = DType::kFloat32;
  std::vector<Boxes> views;
  int64_t count = 0;
  for (int64_t i = 0; i < images; ++i) {
    const Array& some = boxes[i];
    if (some.rank() != 2 || some.sizes[1] != 4)
      call.fail("boxes of shape [L, 4]", to_string(some.sizes) + " for image " + std::to_string(i));
    check_floating(call, "boxes", some);
    check_device(call, "boxes", some, "input");
    dtype = compute_type(dtype, some.dtype);
    views.push_back(boxes_of(some));
    count += some.sizes[0];
  }
  const Array rois = call.empty({count, 5}, dtype);
  call.run([&](const Parallel&) { cpu::boxes_to_rois(views.data(), images, dtype, rois.data); },
           [&](auto stream) { return cuda::boxes_to_rois(views.data(), images, dtype, rois.data, stream); });
  return rois;
}
BOXOPS_OP(boxes_to_rois, "input", "boxes", "op");

Array roi_align(Framework& framework, Array input, Array boxes, int64_t height, int64_t width, double spatial_scale,
                int64_t sampling_ratio, bool aligned) {
  const Call call("roi_align", framework, input.device);
  const Features features = check_features(call, input, spatial_scale);
  const Rois rois = check_rois(call, boxes, "input");
  const Bins bins = check_bins(call, height, width, sampling_ratio, aligned);
  return forward(call, boxes, input.dtype, features, rois, bins, features.channels, KERNELS(roi_align));
}
BOXOPS_OP(roi_align, "input", "boxes", "height", "width", "spatial_scale", "sampling_ratio", "aligned");

Array multiscale_roi_align(Framework& framework, std::vector<Array> inputs, Array boxes, int64_t height, int64_t width,
                           std::vector<double> scales, int64_t sampling_ratio, bool aligned, double canonical_scale,
                           int64_t canonical_level) {
  const Call call("multiscale_roi_align", framework, inputs.empty() ? boxes.device : inputs[0].device);
  const Features features = check_pyramid(call, inputs, scales, canonical_scale, canonical_level);
  const Rois rois = check_rois(call, boxes, "features");
  const Bins bins = check_bins(call, height, width, sampling_ratio, aligned);
  return forward(call, boxes, inputs[0].dtype, features, rois, bins, features.channels, KERNELS(roi_align));
}
BOXOPS_OP(multiscale_roi_align, "features", "boxes", "height", "width", "scales", "sampling_ratio", "aligned",
          "canonical_scale", "canonical_level");

Array ps_roi_align(Framework& framework, Array input, Array boxes, int64_t height, int64_t width, double spatial_scale,
                   int64_t sampling_ratio) {
  const Call call("ps_roi_align", framework, input.device);
  const Features features = check_features(call, input, spatial_scale);
  const Rois rois = check_rois(call, boxes, "input");
  const Bins bins = check_bins(call, height, width, sampling_ratio, true);
  return forward(call, boxes, input.dtype, features, rois, bins, channels_per_bin(call, features, bins),
                 KERNELS(ps_roi_align));
}
BOXOPS_OP(ps_roi_align, "input", "boxes", "height", "width", "spatial_scale", "sampling_ratio");

Array ps_roi_pool(Framework& framework, Array input, Array boxes, int64_t height, int64_t width, double spatial_scale) {
  const Call call("ps_roi_pool", framework, input.device);
  const Features features = check_features(call, input, spatial_scale);
  const Rois rois = check_rois(call, boxes, "input");
  const Bins bins = check_bins(call, height, width);
  return forward(call, boxes, input.dtype, features, rois, bins, channels_per_bin(call, features, bins),
                 KERNELS(ps_roi_pool));
}
BOXOPS_OP(ps_roi_pool, "input", "boxes", "height", "width", "spatial_scale");

Array roi_pool(Framework& framework, Array input, Array boxes, int64_t height, int64_t width, double spatial_scale) {
  const Call call("roi_pool", framework, input.device);
  const Features features = check_features(call, input, spatial_scale);
  const Rois rois = check_rois(call, boxes, "input");
  const Bins bins = check_bins(call, height, width);
  int32_t* const none = nullptr;
  return forward(call, boxes, input.dtype, features, rois, bins, features.channels, KERNELS(roi_pool), none);
}
BOXOPS_OP(roi_pool, "input", "boxes", "height", "width", "spatial_scale");

std::tuple<Array, Array> roi_pool_with_argmax(Framework& framework, Array input, Array boxes, int64_t height,
                                              int64_t width, double spatial_scale) {
  const Call call("roi_pool", framework, input.device);
  const Features features = check_features(call, input, spatial_scale);
  const Rois rois = check_rois(call, boxes, "input");
  const Bins bins = check_bins(call, height, width);
  const Array argmax = call.empty({rois.count, features.channels, height, width}, DType::kInt32);
  return {forward(call, boxes, input.dtype, features, rois, bins, features.channels, KERNELS(roi_pool),
                  argmax.as<int32_t>()),
          argmax};
}
BOXOPS_OP(roi_pool_with_argmax, "input", "boxes", "height", "width", "spatial_scale");

Array roi_align_backward(Framework& framework, Array grad, Array boxes, int64_t count, int64_t height, int64_t width,
                         double spatial_scale, int64_t sampling_ratio, bool aligned) {
  const Call call("roi_align_backward", framework, grad.device);
  check_grad(call, grad, boxes);
  const Rois rois = check_rois(call, boxes, "grad");
  const Bins bins = check_bins(call, grad.sizes[2], grad.sizes[3], sampling_ratio, aligned);
  check_scale(call, "spatial_scale", spatial_scale);
  const Gradients g = empty_gradients(call, grad, count, grad.sizes[1], {height}, {width}, spatial_scale, false);
  return backward(call, boxes, grad, g, rois, bins, KERNELS(roi_align_backward));
}
BOXOPS_OP(roi_align_backward, "grad", "boxes", "count", "height", "width", "spatial_scale", "sampling_ratio",
          "aligned");

Array multiscale_roi_align_backward(Framework& framework, Array grad, Array boxes, int64_t count,
                                    std::vector<int64_t> heights, std::vector<int64_t> widths,
                                    std::vector<double> scales, int64_t sampling_ratio, bool aligned,
                                    double canonical_scale, int64_t canonical_level) {
  const Call call("multiscale_roi_align_backward", framework, grad.device);
  check_grad(call, grad, boxes);
  const Rois rois = check_rois(call, boxes, "grad");
  const Bins bins = check_bins(call, grad.sizes[2], grad.sizes[3], sampling_ratio, aligned);
  Gradients g = empty_gradients(call, grad, count, grad.sizes[1], heights, widths, 1.0, true);
  check_levels(call, g.features, scales, canonical_scale, canonical_level);
  return backward(call, boxes, grad, g, rois, bins, KERNELS(roi_align_backward));
}
BOXOPS_OP(multiscale_roi_align_backward, "grad", "boxes", "count", "heights", "widths", "scales", "sampling_ratio",
          "aligned", "canonical_scale", "canonical_level");

Array ps_roi_align_backward(Framework& framework, Array grad, Array boxes, int64_t count, int64_t height, int64_t width,
                            double spatial_scale, int64_t sampling_ratio) {
  const Call call("ps_roi_align_backward", framework, grad.device);
  check_grad(call, grad, boxes);
  const Rois rois = check_rois(call, boxes, "grad");
  const Bins bins = check_bins(call, grad.sizes[2], grad.sizes[3], sampling_ratio, true);
  check_scale(call, "spatial_scale", spatial_scale);
  const int64_t channels = grad.sizes[1] * bins.height * bins.width;
  const Gradients g = empty_gradients(call, grad, count, channels, {height}, {width}, spatial_scale, false);
  return backward(call, boxes, grad, g, rois, bins, KERNELS(ps_roi_align_backward));
}
BOXOPS_OP(ps_roi_align_backward, "grad", "boxes", "count", "height", "width", "spatial_scale", "sampling_ratio");

Array ps_roi_pool_backward(Framework& framework, Array grad, Array boxes, int64_t count, int64_t height, int64_t width,
                           double spatial_scale) {
  const Call call("ps_roi_pool_backward", framework, grad.device);
  check_grad(call, grad, boxes);
  const Rois rois = check_rois(call, boxes, "grad");
  const Bins bins = check_bins(call, grad.sizes[2], grad.sizes[3]);
  check_scale(call, "spatial_scale", spatial_scale);
  const int64_t channels = grad.sizes[1] * bins.height * bins.width;
  const Gradients g = empty_gradients(call, grad, count, channels, {height}, {width}, spatial_scale, false);
  return backward(call, boxes, grad, g, rois, bins, KERNELS(ps_roi_pool_backward));
}
BOXOPS_OP(ps_roi_pool_backward, "grad", "boxes", "count", "height", "width", "spatial_scale");

Array roi_pool_backward(Framework& framework, Array grad, Array argmax, Array boxes, int64_t count, int64_t height,
                        int64_t width, double spatial_scale) {
  const Call call("roi_pool_backward", framework, grad.device);
  check_grad(call, grad, boxes);
  const Rois rois = check_rois(call, boxes, "grad");
  const Bins bins = check_bins(call, grad.sizes[2], grad.sizes[3]);
  check_scale(call, "spatial_scale", spatial_scale);
  if (argmax.dtype != DType::kInt32) call.fail("argmax of dtype int32", name_of(argmax.dtype));
  check_shape(call, "argmax", argmax, grad.sizes, to_string(grad.sizes).c_str());
  check_device(call, "argmax", argmax, "grad");
  const Gradients g = empty_gradients(call, grad, count, grad.sizes[1], {height}, {width}, spatial_scale, false);
  const Array places = contiguous(call, argmax);
  return backward(call, boxes, grad, g, rois, bins, KERNELS(roi_pool_backward), places.as<int32_t>());
}
BOXOPS_OP(roi_pool_backward, "grad", "argmax", "boxes", "count", "height", "width", "spatial_scale");

}  // namespace boxops::ops
