// boxops for C, and for every language that can call C: the ops of boxops/ops.h on plain structs.
//
// Every function returns a status and lets no exception out. After a status other than BOXOPS_OK, boxops_last_error()
// says, for the calling thread, what was expected and what came, in the words that Python users see, and the results
// are NULL. Functions may be called from several threads at once.
//
// Arrays that are passed in are looked at, never kept or changed. Results are new: boxops_free() each. All arrays of a
// call are on one device; on CUDA, work is put on `stream` (a cudaStream_t; NULL is the default stream), results are
// ordered on it, and the stream must live until they are freed. On the CPU `stream` means nothing.
//
// What an op computes, its shapes, ties and NaN, is said in the header of its family: boxops/nms.h, boxops/iou.h, ...
// and in the documentation of the Python function of the same name.
#ifndef BOXOPS_C_H
#define BOXOPS_C_H

#include <stdint.h>

#include <boxops/portability.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum boxops_status {
  BOXOPS_OK = 0,
  BOXOPS_INVALID_ARGUMENT = 1,  // a wrong value, shape, dtype or device
  BOXOPS_OUT_OF_MEMORY = 2,
  BOXOPS_FAILED = 3  // CUDA, or a device that this build does not serve
} boxops_status;

typedef enum boxops_dtype {
  BOXOPS_UINT8,
  BOXOPS_INT8,
  BOXOPS_UINT16,
  BOXOPS_INT16,
  BOXOPS_UINT32,
  BOXOPS_INT32,
  BOXOPS_UINT64,
  BOXOPS_INT64,
  BOXOPS_FLOAT16,
  BOXOPS_BFLOAT16,
  BOXOPS_FLOAT32,
  BOXOPS_FLOAT64,
  BOXOPS_BOOL
} boxops_dtype;

typedef enum boxops_device { BOXOPS_CPU, BOXOPS_CUDA } boxops_device;
typedef enum boxops_format { BOXOPS_XYXY, BOXOPS_XYWH, BOXOPS_CXCYWH } boxops_format;
typedef enum boxops_measure { BOXOPS_IOU, BOXOPS_IOA, BOXOPS_GIOU, BOXOPS_DIOU, BOXOPS_CIOU } boxops_measure;
typedef enum boxops_coding { BOXOPS_RCNN, BOXOPS_YOLOV1, BOXOPS_YOLOV2, BOXOPS_YOLOV3 } boxops_coding;
typedef enum boxops_decay { BOXOPS_LINEAR, BOXOPS_GAUSSIAN } boxops_decay;

// A view of an array.
typedef struct boxops_tensor {
  void* data;
  const int64_t* shape;    // [ndim]
  const int64_t* strides;  // [ndim], in elements; NULL: contiguous
  int32_t ndim;            // at most 16
  int32_t dtype;           // a boxops_dtype
  int32_t device_type;     // a boxops_device
  int32_t device_index;    // which CUDA device
} boxops_tensor;

BOXOPS_API const char* boxops_version(void);     // "0.1.0"
BOXOPS_API const char* boxops_build_info(void);  // "cuda sm_90, cpu avx512"

// Of the last call of this thread that did not return BOXOPS_OK; "" before the first. Valid until the next call.
BOXOPS_API const char* boxops_last_error(void);

// Gives a result's memory back; NULL is nothing.
BOXOPS_API void boxops_free(boxops_tensor* result);

// The threads that work on the CPU, BOXOPS_NUM_THREADS or as many as there are cores.
BOXOPS_API void boxops_set_num_threads(int64_t n);
BOXOPS_API int64_t boxops_get_num_threads(void);

// Below, `const boxops_tensor*`, `const double*` and `const int64_t*` that may be NULL say so; NULL is None in Python.

// Boxes.
BOXOPS_API boxops_status boxops_box_area(const boxops_tensor* boxes, boxops_format format, boxops_tensor** area,
                                         void* stream);
BOXOPS_API boxops_status boxops_box_convert(const boxops_tensor* boxes, boxops_format from, boxops_format to,
                                            boxops_tensor** converted, void* stream);
BOXOPS_API boxops_status boxops_clip_boxes_to_image(const boxops_tensor* boxes, double height, double width,
                                                    boxops_tensor** clipped, void* stream);
BOXOPS_API boxops_status boxops_remove_small_boxes(const boxops_tensor* boxes, double min_size, boxops_tensor** keep,
                                                   void* stream);
// weights[4], in RCNN coding; stride[2] (y, x) in YOLO codings, else NULL; image_size[2] (height, width) or NULL.
BOXOPS_API boxops_status boxops_encode_boxes(const boxops_tensor* boxes, const boxops_tensor* anchors,
                                             boxops_coding coding, const double* weights, const double* stride,
                                             boxops_tensor** deltas, void* stream);
BOXOPS_API boxops_status boxops_decode_boxes(const boxops_tensor* deltas, const boxops_tensor* anchors,
                                             boxops_coding coding, const double* weights, const double* stride,
                                             double clip, const double* image_size, boxops_tensor** boxes,
                                             void* stream);

// IoU and its relatives: [..., N, 4] and [..., M, 4] give [..., N, M]; `paired`: [..., 4] twice give [...]. `eps` is
// added to the divisors of GIoU's, DIoU's and CIoU's penalties (1e-7 in Python; 0 for the others).
BOXOPS_API boxops_status boxops_box_iou(const boxops_tensor* boxes1, const boxops_tensor* boxes2,
                                        boxops_measure measure, boxops_format format, int paired, double eps,
                                        boxops_tensor** iou, void* stream);
BOXOPS_API boxops_status boxops_rotated_box_iou(const boxops_tensor* boxes1, const boxops_tensor* boxes2, int paired,
                                                boxops_tensor** iou, void* stream);

// Suppression.
BOXOPS_API boxops_status boxops_nms(const boxops_tensor* boxes, const boxops_tensor* scores, double iou_threshold,
                                    boxops_tensor** keep, void* stream);
BOXOPS_API boxops_status boxops_batched_nms(const boxops_tensor* boxes, const boxops_tensor* scores,
                                            const boxops_tensor* idxs, double iou_threshold, boxops_tensor** keep,
                                            void* stream);
// idxs and score_threshold may be NULL.
BOXOPS_API boxops_status boxops_nms_padded(const boxops_tensor* boxes, const boxops_tensor* scores,
                                           double iou_threshold, int64_t max_output, const boxops_tensor* idxs,
                                           const double* score_threshold, boxops_tensor** indices,
                                           boxops_tensor** counts, void* stream);
// idxs may be NULL.
BOXOPS_API boxops_status boxops_soft_nms(const boxops_tensor* boxes, const boxops_tensor* scores, double iou_threshold,
                                         boxops_decay decay, double sigma, double score_threshold,
                                         const boxops_tensor* idxs, boxops_tensor** keep, boxops_tensor** kept_scores,
                                         void* stream);
BOXOPS_API boxops_status boxops_rotated_nms(const boxops_tensor* boxes, const boxops_tensor* scores,
                                            double iou_threshold, boxops_tensor** keep, void* stream);
BOXOPS_API boxops_status boxops_batched_rotated_nms(const boxops_tensor* boxes, const boxops_tensor* scores,
                                                    const boxops_tensor* idxs, double iou_threshold,
                                                    boxops_tensor** keep, void* stream);
// topk_per_class and min_size may be NULL.
BOXOPS_API boxops_status boxops_detect(const boxops_tensor* boxes, const boxops_tensor* scores, double score_threshold,
                                       double iou_threshold, int64_t max_output, const int64_t* topk_per_class,
                                       const double* min_size, int class_agnostic, boxops_tensor** detected_boxes,
                                       boxops_tensor** detected_scores, boxops_tensor** labels, boxops_tensor** counts,
                                       void* stream);

// Assignment. Offsets may be NULL, ignore_boxes too.
BOXOPS_API boxops_status boxops_match_max_iou(const boxops_tensor* anchors, const boxops_tensor* gt_boxes, double high,
                                              double low, int allow_low_quality, const boxops_tensor* offsets,
                                              const boxops_tensor* ignore_boxes, const boxops_tensor* ignore_offsets,
                                              double ignore_threshold, boxops_tensor** matches, boxops_tensor** ious,
                                              void* stream);
// iou_threshold may be NULL.
BOXOPS_API boxops_status boxops_match_greedy(const boxops_tensor* anchors, const boxops_tensor* gt_boxes,
                                             const double* iou_threshold, const boxops_tensor* offsets,
                                             boxops_tensor** matches, boxops_tensor** ious, void* stream);
// A faulty problem is an error, but with `mark_invalid`: then its columns are -1.
BOXOPS_API boxops_status boxops_linear_sum_assignment(const boxops_tensor* cost, int maximize,
                                                      const boxops_tensor* offsets, int mark_invalid,
                                                      boxops_tensor** row_ind, boxops_tensor** col_ind, void* stream);

// Regions of interest: boxes [K, 5] with the image in front.
BOXOPS_API boxops_status boxops_roi_align(const boxops_tensor* input, const boxops_tensor* boxes, int64_t height,
                                          int64_t width, double spatial_scale, int64_t sampling_ratio, int aligned,
                                          boxops_tensor** output, void* stream);
BOXOPS_API boxops_status boxops_roi_pool(const boxops_tensor* input, const boxops_tensor* boxes, int64_t height,
                                         int64_t width, double spatial_scale, boxops_tensor** output, void* stream);
BOXOPS_API boxops_status boxops_ps_roi_align(const boxops_tensor* input, const boxops_tensor* boxes, int64_t height,
                                             int64_t width, double spatial_scale, int64_t sampling_ratio,
                                             boxops_tensor** output, void* stream);
BOXOPS_API boxops_status boxops_ps_roi_pool(const boxops_tensor* input, const boxops_tensor* boxes, int64_t height,
                                            int64_t width, double spatial_scale, boxops_tensor** output, void* stream);

// Masks. threshold may be NULL.
BOXOPS_API boxops_status boxops_paste_masks(const boxops_tensor* masks, const boxops_tensor* boxes, int64_t height,
                                            int64_t width, int64_t padding, const double* threshold,
                                            boxops_tensor** pasted, void* stream);
BOXOPS_API boxops_status boxops_masks_to_boxes(const boxops_tensor* masks, boxops_tensor** boxes, void* stream);

#ifdef __cplusplus
}
#endif

#endif  // BOXOPS_C_H
