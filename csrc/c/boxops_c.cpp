#include <boxops/boxops_c.h>

#include <boxops/memory.h>
#include <boxops/ops.h>
#include <boxops/threads.h>
#include <boxops/version.h>

#include <array>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ops/check.h"
#include "ops/cuda_runtime.h"

namespace boxops {
namespace {

static_assert(static_cast<int>(DType::kBool) == BOXOPS_BOOL && static_cast<int>(Format::kCXCYWH) == BOXOPS_CXCYWH &&
              static_cast<int>(Coding::kYOLOv3) == BOXOPS_YOLOV3 && static_cast<int>(Measure::kCIoU) == BOXOPS_CIOU &&
              static_cast<int>(DeviceType::kCUDA) == BOXOPS_CUDA);

thread_local char last_error[1024] = "";

struct Result {
  boxops_tensor tensor;  // what the caller has; first, so that boxops_free finds the rest
  Array array;
};

// One call from C: its arrays as Arrays, its enums, and memory of our own.
class CFramework final : public Framework {
 public:
  CFramework(const char* op, void* stream) : op_(op), stream_(stream) {}

  Array in(const char* name, const boxops_tensor* t) const {
    if (t == nullptr) fail(op_, std::string(name) + " to be an array", "NULL");
    if (t->dtype < 0 || t->dtype > BOXOPS_BOOL)
      fail(op_, std::string(name) + " of a boxops_dtype", std::to_string(t->dtype));
    if (t->device_type != BOXOPS_CPU && t->device_type != BOXOPS_CUDA)
      fail(op_, std::string(name) + " on a boxops_device", std::to_string(t->device_type));
    if (t->ndim < 0 || t->ndim > kMaxRank)
      fail(op_, std::string(name) + " of 0 to " + std::to_string(kMaxRank) + " dims", std::to_string(t->ndim));
    if (t->ndim > 0 && t->shape == nullptr) fail(op_, std::string(name) + " with a shape", "NULL");
    Array a;
    a.dtype = static_cast<DType>(t->dtype);
    a.device = {static_cast<DeviceType>(t->device_type), t->device_type == BOXOPS_CPU ? 0 : t->device_index};
    for (int i = 0; i < t->ndim; ++i) {
      if (t->shape[i] < 0) fail(op_, std::string(name) + " with sizes >= 0", std::to_string(t->shape[i]));
      a.sizes.push_back(t->shape[i]);
    }
    bytes_of(a.sizes, a.dtype, {DeviceType::kCUDA, 0});  // its number of elements is a number
    a.strides = compact_strides(a.sizes);
    if (t->strides != nullptr) std::copy_n(t->strides, t->ndim, a.strides.values);
    if (a.numel() > 0 && t->data == nullptr) fail(op_, std::string(name) + " with data", "NULL");
    a.data = t->data;
    return a;
  }
  std::optional<Array> optional(const char* name, const boxops_tensor* t) const {
    return t == nullptr ? std::nullopt : std::optional<Array>(in(name, t));
  }

  template <class Enum>
  Enum in(const char* name, int value) const {
    const int count = static_cast<int>(kNames<Enum>.size());
    if (value < 0 || value >= count)
      fail(op_, std::string(name) + " in 0.." + std::to_string(count - 1), std::to_string(value));
    return static_cast<Enum>(value);
  }

  Array empty(const Dims& sizes, DType dtype, Device device) override {
    return allocate(sizes, dtype, device, stream_);
  }
  const Parallel& parallel() override { return own_threads(); }
  void* stream(Device) override { return stream_; }

 private:
  const char* op_;
  void* stream_;
};

std::tuple<Array> as_tuple(Array a) { return {std::move(a)}; }
template <class... A>
std::tuple<A...> as_tuple(std::tuple<A...> all) {
  return all;
}

boxops_status told(boxops_status status, const char* what) {
  std::snprintf(last_error, sizeof(last_error), "%s", what);
  return status;
}

// Runs op(call) and hands its results out, all or none.
template <size_t n, class Op>
boxops_status run(const char* op, void* stream, const std::array<boxops_tensor**, n>& out, Op&& f) noexcept {
  try {
    for (boxops_tensor** one : out)
      if (one == nullptr) fail(op, "a place for each result", "NULL");
    for (boxops_tensor** one : out) *one = nullptr;
    try {
      CFramework call(op, stream);
      auto arrays = as_tuple(f(call));
      std::array<std::unique_ptr<Result>, n> results;
      size_t i = 0;
      std::apply([&](auto&... array) { ((results[i++].reset(new Result{{}, std::move(array)})), ...); }, arrays);
      for (i = 0; i < n; ++i) {
        const Array& a = results[i]->array;
        results[i]->tensor = {a.data,
                              a.sizes.values,
                              a.strides.values,
                              a.rank(),
                              static_cast<int32_t>(a.dtype),
                              static_cast<int32_t>(a.device.type),
                              a.device.index};
      }
      for (i = 0; i < n; ++i) *out[i] = &results[i].release()->tensor;
      return BOXOPS_OK;
    } catch (...) {
      rethrow_named([op] { return op; });
    }
  } catch (const Error& error) {
    return told(BOXOPS_INVALID_ARGUMENT, error.what());
  } catch (const OutOfMemory& error) {
    return told(BOXOPS_OUT_OF_MEMORY, error.what());
  } catch (const std::exception& error) {
    return told(BOXOPS_FAILED, error.what());
  } catch (...) {
    return told(BOXOPS_FAILED, "an unknown exception");
  }
}

template <class... Out>
std::array<boxops_tensor**, sizeof...(Out)> to(Out... out) {
  return {out...};
}

std::vector<double> numbers(const double* values, int count) {
  return values == nullptr ? std::vector<double>() : std::vector<double>(values, values + count);
}

template <class T>
std::optional<T> optional(const T* value) {
  return value == nullptr ? std::nullopt : std::optional<T>(*value);
}

}  // namespace
}  // namespace boxops

using namespace boxops;

const char* boxops_version() { return BOXOPS_VERSION; }

const char* boxops_build_info() {
  static const std::string info = ops::build_info();
  return info.c_str();
}

const char* boxops_last_error() { return last_error; }

void boxops_free(boxops_tensor* result) { delete reinterpret_cast<Result*>(result); }

void boxops_set_num_threads(int64_t n) { set_num_threads(n); }
int64_t boxops_get_num_threads() { return num_threads(); }

boxops_status boxops_box_area(const boxops_tensor* boxes, boxops_format format, boxops_tensor** area, void* stream) {
  return run("box_area", stream, to(area),
             [&](CFramework& c) { return ops::box_area(c, c.in("boxes", boxes), c.in<Format>("format", format)); });
}

boxops_status boxops_box_convert(const boxops_tensor* boxes, boxops_format from, boxops_format to_format,
                                 boxops_tensor** converted, void* stream) {
  return run("box_convert", stream, to(converted), [&](CFramework& c) {
    return ops::box_convert(c, c.in("boxes", boxes), c.in<Format>("from", from), c.in<Format>("to", to_format));
  });
}

boxops_status boxops_clip_boxes_to_image(const boxops_tensor* boxes, double height, double width,
                                         boxops_tensor** clipped, void* stream) {
  return run("clip_boxes_to_image", stream, to(clipped),
             [&](CFramework& c) { return ops::clip_boxes_to_image(c, c.in("boxes", boxes), height, width); });
}

boxops_status boxops_remove_small_boxes(const boxops_tensor* boxes, double min_size, boxops_tensor** keep,
                                        void* stream) {
  return run("remove_small_boxes", stream, to(keep),
             [&](CFramework& c) { return ops::remove_small_boxes(c, c.in("boxes", boxes), min_size); });
}

boxops_status boxops_encode_boxes(const boxops_tensor* boxes, const boxops_tensor* anchors, boxops_coding coding,
                                  const double* weights, const double* stride, boxops_tensor** deltas, void* stream) {
  return run("encode_boxes", stream, to(deltas), [&](CFramework& c) {
    return ops::encode_boxes(c, c.in("boxes", boxes), c.in("anchors", anchors), c.in<Coding>("coding", coding),
                             numbers(weights, 4), numbers(stride, 2));
  });
}

boxops_status boxops_decode_boxes(const boxops_tensor* deltas, const boxops_tensor* anchors, boxops_coding coding,
                                  const double* weights, const double* stride, double clip, const double* image_size,
                                  boxops_tensor** boxes, void* stream) {
  return run("decode_boxes", stream, to(boxes), [&](CFramework& c) {
    return ops::decode_boxes(c, c.in("deltas", deltas), c.in("anchors", anchors), c.in<Coding>("coding", coding),
                             numbers(weights, 4), numbers(stride, 2), clip, numbers(image_size, 2));
  });
}

boxops_status boxops_box_iou(const boxops_tensor* boxes1, const boxops_tensor* boxes2, boxops_measure measure,
                             boxops_format format, int paired, double eps, boxops_tensor** iou, void* stream) {
  return run("box_iou", stream, to(iou), [&](CFramework& c) {
    return ops::iou(c, c.in("boxes1", boxes1), c.in("boxes2", boxes2), c.in<Measure>("measure", measure), paired != 0,
                    c.in<Format>("format", format), eps, false);
  });
}

boxops_status boxops_rotated_box_iou(const boxops_tensor* boxes1, const boxops_tensor* boxes2, int paired,
                                     boxops_tensor** iou, void* stream) {
  return run("rotated_box_iou", stream, to(iou), [&](CFramework& c) {
    return ops::rotated_box_iou(c, c.in("boxes1", boxes1), c.in("boxes2", boxes2), paired != 0);
  });
}

boxops_status boxops_nms(const boxops_tensor* boxes, const boxops_tensor* scores, double iou_threshold,
                         boxops_tensor** keep, void* stream) {
  return run("nms", stream, to(keep),
             [&](CFramework& c) { return ops::nms(c, c.in("boxes", boxes), c.in("scores", scores), iou_threshold); });
}

boxops_status boxops_batched_nms(const boxops_tensor* boxes, const boxops_tensor* scores, const boxops_tensor* idxs,
                                 double iou_threshold, boxops_tensor** keep, void* stream) {
  return run("batched_nms", stream, to(keep), [&](CFramework& c) {
    return ops::batched_nms(c, c.in("boxes", boxes), c.in("scores", scores), c.in("idxs", idxs), iou_threshold);
  });
}

boxops_status boxops_nms_padded(const boxops_tensor* boxes, const boxops_tensor* scores, double iou_threshold,
                                int64_t max_output, const boxops_tensor* idxs, const double* score_threshold,
                                boxops_tensor** indices, boxops_tensor** counts, void* stream) {
  return run("nms_padded", stream, to(indices, counts), [&](CFramework& c) {
    return ops::nms_padded(c, c.in("boxes", boxes), c.in("scores", scores), iou_threshold, max_output,
                           c.optional("idxs", idxs), optional(score_threshold));
  });
}

boxops_status boxops_soft_nms(const boxops_tensor* boxes, const boxops_tensor* scores, double iou_threshold,
                              boxops_decay decay, double sigma, double score_threshold, const boxops_tensor* idxs,
                              boxops_tensor** keep, boxops_tensor** kept_scores, void* stream) {
  return run("soft_nms", stream, to(keep, kept_scores), [&](CFramework& c) {
    return ops::soft_nms(c, c.in("boxes", boxes), c.in("scores", scores), iou_threshold,
                         c.in<SoftNmsMethod>("decay", decay), sigma, score_threshold, c.optional("idxs", idxs));
  });
}

boxops_status boxops_rotated_nms(const boxops_tensor* boxes, const boxops_tensor* scores, double iou_threshold,
                                 boxops_tensor** keep, void* stream) {
  return run("rotated_nms", stream, to(keep), [&](CFramework& c) {
    return ops::rotated_nms(c, c.in("boxes", boxes), c.in("scores", scores), iou_threshold);
  });
}

boxops_status boxops_batched_rotated_nms(const boxops_tensor* boxes, const boxops_tensor* scores,
                                         const boxops_tensor* idxs, double iou_threshold, boxops_tensor** keep,
                                         void* stream) {
  return run("batched_rotated_nms", stream, to(keep), [&](CFramework& c) {
    return ops::batched_rotated_nms(c, c.in("boxes", boxes), c.in("scores", scores), c.in("idxs", idxs), iou_threshold);
  });
}

boxops_status boxops_detect(const boxops_tensor* boxes, const boxops_tensor* scores, double score_threshold,
                            double iou_threshold, int64_t max_output, const int64_t* topk_per_class,
                            const double* min_size, int class_agnostic, boxops_tensor** detected_boxes,
                            boxops_tensor** detected_scores, boxops_tensor** labels, boxops_tensor** counts,
                            void* stream) {
  return run("detect", stream, to(detected_boxes, detected_scores, labels, counts), [&](CFramework& c) {
    return ops::detect(c, c.in("boxes", boxes), c.in("scores", scores), score_threshold, iou_threshold, max_output,
                       optional(topk_per_class), optional(min_size), class_agnostic != 0);
  });
}

boxops_status boxops_match_max_iou(const boxops_tensor* anchors, const boxops_tensor* gt_boxes, double high, double low,
                                   int allow_low_quality, const boxops_tensor* offsets,
                                   const boxops_tensor* ignore_boxes, const boxops_tensor* ignore_offsets,
                                   double ignore_threshold, boxops_tensor** matches, boxops_tensor** ious,
                                   void* stream) {
  return run("match_max_iou", stream, to(matches, ious), [&](CFramework& c) {
    return ops::match_max_iou(c, c.in("anchors", anchors), c.in("gt_boxes", gt_boxes), high, low,
                              allow_low_quality != 0, c.optional("offsets", offsets),
                              c.optional("ignore_boxes", ignore_boxes), c.optional("ignore_offsets", ignore_offsets),
                              ignore_threshold);
  });
}

boxops_status boxops_match_greedy(const boxops_tensor* anchors, const boxops_tensor* gt_boxes,
                                  const double* iou_threshold, const boxops_tensor* offsets, boxops_tensor** matches,
                                  boxops_tensor** ious, void* stream) {
  return run("match_greedy", stream, to(matches, ious), [&](CFramework& c) {
    return ops::match_greedy(c, c.in("anchors", anchors), c.in("gt_boxes", gt_boxes), optional(iou_threshold),
                             c.optional("offsets", offsets));
  });
}

boxops_status boxops_linear_sum_assignment(const boxops_tensor* cost, int maximize, const boxops_tensor* offsets,
                                           int mark_invalid, boxops_tensor** row_ind, boxops_tensor** col_ind,
                                           void* stream) {
  return run("linear_sum_assignment", stream, to(row_ind, col_ind), [&](CFramework& c) {
    return ops::linear_sum_assignment(c, c.in("cost", cost), maximize != 0, c.optional("offsets", offsets),
                                      mark_invalid != 0 ? OnInvalid::kUnmatched : OnInvalid::kRaise);
  });
}

boxops_status boxops_roi_align(const boxops_tensor* input, const boxops_tensor* boxes, int64_t height, int64_t width,
                               double spatial_scale, int64_t sampling_ratio, int aligned, boxops_tensor** output,
                               void* stream) {
  return run("roi_align", stream, to(output), [&](CFramework& c) {
    return ops::roi_align(c, c.in("input", input), c.in("boxes", boxes), height, width, spatial_scale, sampling_ratio,
                          aligned != 0);
  });
}

boxops_status boxops_roi_pool(const boxops_tensor* input, const boxops_tensor* boxes, int64_t height, int64_t width,
                              double spatial_scale, boxops_tensor** output, void* stream) {
  return run("roi_pool", stream, to(output), [&](CFramework& c) {
    return ops::roi_pool(c, c.in("input", input), c.in("boxes", boxes), height, width, spatial_scale);
  });
}

boxops_status boxops_ps_roi_align(const boxops_tensor* input, const boxops_tensor* boxes, int64_t height, int64_t width,
                                  double spatial_scale, int64_t sampling_ratio, boxops_tensor** output, void* stream) {
  return run("ps_roi_align", stream, to(output), [&](CFramework& c) {
    return ops::ps_roi_align(c, c.in("input", input), c.in("boxes", boxes), height, width, spatial_scale,
                             sampling_ratio);
  });
}

boxops_status boxops_ps_roi_pool(const boxops_tensor* input, const boxops_tensor* boxes, int64_t height, int64_t width,
                                 double spatial_scale, boxops_tensor** output, void* stream) {
  return run("ps_roi_pool", stream, to(output), [&](CFramework& c) {
    return ops::ps_roi_pool(c, c.in("input", input), c.in("boxes", boxes), height, width, spatial_scale);
  });
}

boxops_status boxops_paste_masks(const boxops_tensor* masks, const boxops_tensor* boxes, int64_t height, int64_t width,
                                 int64_t padding, const double* threshold, boxops_tensor** pasted, void* stream) {
  return run("paste_masks", stream, to(pasted), [&](CFramework& c) {
    return ops::paste_masks(c, c.in("masks", masks), c.in("boxes", boxes), height, width, padding, optional(threshold));
  });
}

boxops_status boxops_masks_to_boxes(const boxops_tensor* masks, boxops_tensor** boxes, void* stream) {
  return run("masks_to_boxes", stream, to(boxes),
             [&](CFramework& c) { return ops::masks_to_boxes(c, c.in("masks", masks)); });
}
