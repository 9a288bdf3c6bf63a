#include <boxops/torchvision.h>

#include <cmath>
#include <memory>

#include "torch_ops/bind.h"

namespace boxops::torch_ops {
namespace {

// The result of an operator of torch.
template <class... Args>
Array call_torch(const char* name, Args... args) {
  StableIValue stack[] = {args...};
  CHECK(torch_call_dispatcher, name, "", stack, kTorchVersion);
  return to_array(reinterpret_cast<AtenTensorHandle>(stack[0]));
}

void copy(const Array& to, const Array& from) { call_torch("aten::copy_", pass(to), pass(from), StableIValue(false)); }

void fill(const Array& array, double value) { CHECK(aoti_torch_aten_fill__Scalar, handle_of(array), value); }

// The beginning of a contiguous array in another shape.
Array view(const Array& array, const Dims& sizes) {
  AtenTensorHandle handle;
  CHECK(aoti_torch__reinterpret_tensor, handle_of(array), sizes.count, sizes.values, compact_strides(sizes).values, 0,
        &handle);
  return to_array(handle);
}

// torchvision's kernels under its names: its order of arguments, and its demand that dtypes agree.

void check_dtypes(const char* op, const char* name, const Array& a, const char* other_name, const Array& other) {
  if (a.dtype != other.dtype)
    throw Error(std::string(op) + ": expected " + name + " and " + other_name + " of one dtype, got " +
                name_of(a.dtype) + " and " + name_of(other.dtype));
}

// Its CPU kernel compares IoUs of float32 with the threshold of float64, where boxops rounds the threshold first. To
// exceed a number, and the largest float32 that is not above it, is the same for a float32.
double threshold_of(const Array& boxes, double threshold) {
  if (boxes.device.type != DeviceType::kCPU || boxes.dtype != DType::kFloat32) return threshold;
  const float rounded = static_cast<float>(threshold);
  return rounded > threshold ? std::nextafter(rounded, -1.0f) : rounded;
}

Array nms(Framework& framework, Array boxes, Array scores, double iou_threshold) {
  check_dtypes("nms", "boxes", boxes, "scores", scores);
  iou_threshold = threshold_of(boxes, iou_threshold);
  return ops::nms(framework, std::move(boxes), std::move(scores), iou_threshold);
}

// float32 for boxes of any dtype.
Array box_iou_rotated(Framework& framework, Array boxes1, Array boxes2) {
  check_dtypes("box_iou_rotated", "boxes1", boxes1, "boxes2", boxes2);
  const Array iou = ops::rotated_box_iou(framework, std::move(boxes1), std::move(boxes2), false);
  if (iou.dtype == DType::kFloat32) return iou;
  const Array narrow = framework.empty(iou.sizes, DType::kFloat32, iou.device);
  copy(narrow, iou);
  return narrow;
}

Array roi_align(Framework& framework, Array input, Array rois, double scale, int64_t pooled_height,
                int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  check_dtypes("roi_align", "input", input, "rois", rois);
  return ops::roi_align(framework, std::move(input), std::move(rois), pooled_height, pooled_width, scale,
                        sampling_ratio, aligned);
}

std::tuple<Array, Array> roi_pool(Framework& framework, Array input, Array rois, double scale, int64_t pooled_height,
                                  int64_t pooled_width) {
  check_dtypes("roi_pool", "input", input, "rois", rois);
  return ops::roi_pool_with_argmax(framework, std::move(input), std::move(rois), pooled_height, pooled_width, scale);
}

// The input channel of each output, [K, C, PH, PW] of int32: 0, 1, 2, ... for each RoI. Made by torch's own operators,
// on whichever device.
Array channel_mapping(Framework& framework, const Array& pooled) {
  const Array mapping = framework.empty(pooled.sizes, DType::kInt32, pooled.device);
  if (mapping.numel() == 0) return mapping;
  const Dims row_sizes{pooled.sizes[1], pooled.sizes[2], pooled.sizes[3]};
  const Array row = framework.empty({row_sizes.product()}, DType::kInt32, pooled.device);
  fill(row, 1);
  fill(view(row, {1}), 0);
  const Array sums = call_torch("aten::cumsum", pass(row), StableIValue(0), StableIValue(0));  // dim 0, no dtype
  copy(mapping, view(sums, row_sizes));
  return mapping;
}

std::tuple<Array, Array> ps_roi_align(Framework& framework, Array input, Array rois, double scale,
                                      int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio) {
  check_dtypes("ps_roi_align", "input", input, "rois", rois);
  Array pooled = ops::ps_roi_align(framework, std::move(input), std::move(rois), pooled_height, pooled_width, scale,
                                   sampling_ratio);
  return {pooled, channel_mapping(framework, pooled)};
}

std::tuple<Array, Array> ps_roi_pool(Framework& framework, Array input, Array rois, double scale, int64_t pooled_height,
                                     int64_t pooled_width) {
  check_dtypes("ps_roi_pool", "input", input, "rois", rois);
  Array pooled = ops::ps_roi_pool(framework, std::move(input), std::move(rois), pooled_height, pooled_width, scale);
  return {pooled, channel_mapping(framework, pooled)};
}

// The ops read the bins, and the channels of the gradient, off `grad`.
void check_grad(const char* op, const Array& grad, const Array& rois, int64_t channels, int64_t height, int64_t width) {
  check_dtypes(op, "grad", grad, "rois", rois);
  if (grad.rank() == 4 && (grad.sizes[1] != channels || grad.sizes[2] != height || grad.sizes[3] != width))
    throw Error(std::string(op) + ": expected grad of shape [K, " + std::to_string(channels) + ", " +
                std::to_string(height) + ", " + std::to_string(width) + "], got [" + std::to_string(grad.sizes[0]) +
                ", " + std::to_string(grad.sizes[1]) + ", " + std::to_string(grad.sizes[2]) + ", " +
                std::to_string(grad.sizes[3]) + "]");
}

Array roi_align_backward(Framework& framework, Array grad, Array rois, double scale, int64_t pooled_height,
                         int64_t pooled_width, int64_t batch_size, int64_t channels, int64_t height, int64_t width,
                         int64_t sampling_ratio, bool aligned) {
  check_grad("roi_align_backward", grad, rois, channels, pooled_height, pooled_width);
  return ops::roi_align_backward(framework, std::move(grad), std::move(rois), batch_size, height, width, scale,
                                 sampling_ratio, aligned);
}

Array roi_pool_backward(Framework& framework, Array grad, Array rois, Array argmax, double scale, int64_t pooled_height,
                        int64_t pooled_width, int64_t batch_size, int64_t channels, int64_t height, int64_t width) {
  check_grad("roi_pool_backward", grad, rois, channels, pooled_height, pooled_width);
  return ops::roi_pool_backward(framework, std::move(grad), std::move(argmax), std::move(rois), batch_size, height,
                                width, scale);
}

int64_t per_bin(int64_t channels, int64_t pooled_height, int64_t pooled_width) {
  const int64_t bins = pooled_height * pooled_width;
  return bins > 0 && channels % bins == 0 ? channels / bins : -1;
}

Array ps_roi_align_backward(Framework& framework, Array grad, Array rois, Array, double scale, int64_t pooled_height,
                            int64_t pooled_width, int64_t sampling_ratio, int64_t batch_size, int64_t channels,
                            int64_t height, int64_t width) {
  check_grad("ps_roi_align_backward", grad, rois, per_bin(channels, pooled_height, pooled_width), pooled_height,
             pooled_width);
  return ops::ps_roi_align_backward(framework, std::move(grad), std::move(rois), batch_size, height, width, scale,
                                    sampling_ratio);
}

Array ps_roi_pool_backward(Framework& framework, Array grad, Array rois, Array, double scale, int64_t pooled_height,
                           int64_t pooled_width, int64_t batch_size, int64_t channels, int64_t height, int64_t width) {
  check_grad("ps_roi_pool_backward", grad, rois, per_bin(channels, pooled_height, pooled_width), pooled_height,
             pooled_width);
  return ops::ps_roi_pool_backward(framework, std::move(grad), std::move(rois), batch_size, height, width, scale);
}

// torchvision's kernels raise RuntimeError; newer torches would make boxops' errors ValueError.
template <auto op>
void kernel(StableIValue* stack, uint64_t, uint64_t) {
  static const Op described = describe<op>("torchvision");
  try {
    call(described, stack);
  } catch (const Error& error) {
    throw std::runtime_error(error.what());
  }
}

struct Operator {
  const char* schema;
  Kernel* kernel;
  std::string name() const { return std::string(schema).substr(0, std::string(schema).find('(')); }
};

const Operator kOperators[] = {
    {"nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor", kernel<nms>},
    {"box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor", kernel<box_iou_rotated>},
    {"roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
     "int sampling_ratio, bool aligned) -> Tensor",
     kernel<roi_align>},
    {"_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
     "SymInt batch_size, SymInt channels, SymInt height, SymInt width, int sampling_ratio, bool aligned) -> Tensor",
     kernel<roi_align_backward>},
    {"roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) -> "
     "(Tensor, Tensor)",
     kernel<roi_pool>},
    {"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float spatial_scale, SymInt pooled_height, "
     "SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt height, SymInt width) -> Tensor",
     kernel<roi_pool_backward>},
    {"ps_roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
     "int sampling_ratio) -> (Tensor, Tensor)",
     kernel<ps_roi_align>},
    {"_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, "
     "SymInt pooled_height, SymInt pooled_width, int sampling_ratio, SymInt batch_size, SymInt channels, "
     "SymInt height, SymInt width) -> Tensor",
     kernel<ps_roi_align_backward>},
    {"ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) -> "
     "(Tensor, Tensor)",
     kernel<ps_roi_pool>},
    {"_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, "
     "SymInt pooled_height, SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt height, SymInt width) "
     "-> Tensor",
     kernel<ps_roi_pool_backward>},
};

// Those that boxops has no kernel for.
const char* const kMissingNames[] = {"deform_conv2d", "_deform_conv2d_backward", "qnms", "qroi_align"};

template <int which, class... Args>
Array refuse(Framework&, Args...) {
  throw Error(std::string(kMissingNames[which]) +
              ": expected a torchvision that fits this torch, got boxops' kernels in its place, of which this is none");
}

const Operator kMissing[] = {
    {"deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
     "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
     "SymInt offset_groups, bool use_mask) -> Tensor",
     kernel<refuse<0, Array, Array, Array, Array, Array>>},
    {"_deform_conv2d_backward(Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
     "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, "
     "SymInt groups, SymInt offset_groups, bool use_mask) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
     kernel<refuse<1, Array, Array, Array, Array, Array, Array>>},
    {"qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor", kernel<refuse<2, Array, Array>>},
    {"qroi_align(Tensor input, Tensor rois, float input_scale, int input_zero_point, float rois_scale, "
     "int rois_zero_point, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio, "
     "bool aligned) -> Tensor",
     kernel<refuse<3, Array, Array>>},
};

// As of a torchvision that was built without CUDA: there is no version to compare with torch's.
void cuda_version(StableIValue* stack, uint64_t, uint64_t) { stack[0] = static_cast<StableIValue>(-1); }

}  // namespace
}  // namespace boxops::torch_ops

using namespace boxops::torch_ops;

// The dispatcher calls the youngest kernel of an operator and device, and goes back to the one before it when that is
// gone.
void* boxops_override_torchvision_ops() noexcept {
  try {
    auto kernels = std::make_unique<Kernels>("torchvision", __FILE__);
    for (const Operator& op : kOperators) kernels->impl(op.name().c_str(), op.kernel);
    return kernels.release();
  } catch (const std::exception&) {
    return nullptr;
  }
}

void boxops_restore_torchvision_ops(void* kernels) noexcept { delete static_cast<Kernels*>(kernels); }

int boxops_provide_torchvision_ops() noexcept {
  static bool provided = false;
  if (provided) return 0;
  try {
    auto schemas = std::make_unique<Library>("torchvision", nullptr, __FILE__);
    auto kernels = std::make_unique<Kernels>("torchvision", __FILE__);
    for (const Operator& op : kOperators) schemas->def(op.schema), kernels->impl(op.name().c_str(), op.kernel);
    for (const Operator& op : kMissing) schemas->def(op.schema), kernels->impl(op.name().c_str(), op.kernel);
    schemas->def("_cuda_version() -> int");
    auto plain = std::make_unique<Library>("torchvision", "CompositeExplicitAutograd", __FILE__);
    plain->impl("_cuda_version", cuda_version);
    schemas.release(), kernels.release(), plain.release();  // they stay
    provided = true;
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}
