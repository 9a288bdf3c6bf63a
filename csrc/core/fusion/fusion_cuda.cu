// Weighted boxes fusion on the device: the boxes are sorted by label and score, a block fuses those of one label, and
// the clusters are sorted by their confidence.
//
// Floor: 10 operations for each box and cluster near it of its label, by one multiprocessor per label.
#include "fusion/fusion.h"
#include "fusion/fusion_window.cuh"
#include "nms/segments.cuh"

namespace boxops::cuda {

namespace {

constexpr int kModelsAtOnce = 16;  // in a launch
struct SomeModels {
  FusionModel models[kModelsAtOnce];
  int64_t firsts[kModelsAtOnce];  // the place of a model's first box
  int64_t number;                 // of the first of the models
};

// A thread loads one box of model blockIdx.y of these.
template <class T>
__global__ void load_kernel(SomeModels some, T score_threshold, FusionState<T> s) {
  const FusionModel& model = some.models[blockIdx.y];
  const int64_t number = some.number + blockIdx.y, first = some.firsts[blockIdx.y];
  const T weight = static_cast<T>(model.weight);
  if (blockIdx.x == 0 && threadIdx.x == 0) s.weights[number] = weight;
  for (const int64_t i : grid_stride(model.boxes.count)) {
    const T score = load<T>(model.scores.data, model.scores.dtype, i * model.scores.stride);
    const Box<T> box = load_box<T>(model.boxes, 0, i);
    const bool used = score >= score_threshold && area(box) > T(0);
    s.boxes[first + i] = {box, score * weight, weight, used ? number : -1, first + i};
    s.labels[first + i] = group_key(model.labels, 0, i);
    s.slot[first + i] = -1;
  }
}

template <class T>
struct WeightedScoreKey {
  const FusionBox<T>* boxes;
  __device__ uint64_t operator()(int64_t i) const { return falling_key(boxes[i].score); }
};
struct LabelKey {
  const uint64_t* labels;
  __device__ uint64_t operator()(int64_t i) const { return labels[i]; }
};
template <class T>
struct ConfidenceKey {
  FusionState<T> s;
  const int64_t* count;
  __device__ uint64_t operator()(int64_t i) const {
    return falling_key(i < *count ? s.confidence[s.found[i]] : std::numeric_limits<T>::quiet_NaN());
  }
};

// A block fuses the boxes of one label after another.
template <class T>
__global__ void __launch_bounds__(kFusionThreads)
    cluster_kernel(FusionState<T> s, FusionRule<T> options, Threshold<T> threshold, int64_t words) {
  __shared__ Window<T> window;
  const int t = static_cast<int>(threadIdx.x);
  for (int i = t; i < kWindow * (kChunk / 32); i += kFusionThreads)
    window.noted[i / (kChunk / 32)][i % (kChunk / 32)] = 0;
  for (int64_t segment = blockIdx.x; segment < *s.segments.count; segment += gridDim.x) {
    const Label<T> label(s, segment, words);
    const Box<T> hull = label.hull();
    if (t == 0) window.cells.fit(hull);
    int64_t count = 0;
    for (int64_t from = 0; from < label.n;) {
      if (!window.load(label, from)) {
        from += kWindow;
        continue;
      }
      window.cells.build(window.shapes, kWindow);
      __syncthreads();
      const Standing<T> standing = find_standing(label, count, threshold, window);
      const Settled settled = settle(label, standing, static_cast<int>(count), threshold, window);
      from += keep(label, settled, threshold, &count, window);
    }
    for (int64_t c = t; c < count; c += kFusionThreads) {
      const int64_t first = label.clusters[c].first;
      s.slot[first] = label.start + c;
      s.confidence[first] = confidence_of(label.clusters[c], label.bits + c * words, s.weights, options);
    }
    __syncthreads();
  }
}

// One block lists the clusters by their first boxes.
template <class T>
__global__ void __launch_bounds__(kCompactThreads) found_kernel(FusionState<T> s, int64_t* count) {
  const int64_t n = s.segments.n;
  const int64_t written =
      compact(n, n, [&](int64_t i) { return s.slot[i] >= 0; }, [&](int64_t at, int64_t i) { s.found[at] = i; });
  if (threadIdx.x == 0) *count = written;
}

// A thread writes one result.
template <class T>
__global__ void emit_kernel(FusionState<T> s, FusionResult result, const int64_t* count) {
  for (const int64_t i : grid_stride(*count)) {
    const int64_t first = s.found[s.segments.order[i]];
    const Box<T> b = s.clusters[s.slot[first]].box;
    T* out = static_cast<T*>(result.boxes) + 4 * i;
    out[0] = b.x1, out[1] = b.y1, out[2] = b.x2, out[3] = b.y2;
    static_cast<T*>(result.scores)[i] = s.confidence[first];
    store_label(result.labels, result.label_bytes, i, s.labels[first]);
  }
}

int64_t count_boxes(const FusionModel* models, const FusionOptions& options) {
  int64_t n = 0;
  for (int64_t m = 0; m < options.models; ++m) n += models[m].boxes.count;
  return n;
}

template <class T>
int load_all(const FusionModel* models, const FusionRule<T>& options, const FusionState<T>& s, void* stream) {
  int64_t first = 0;
  for (int64_t m = 0; m < options.models; m += kModelsAtOnce) {
    SomeModels some{};
    some.number = m;
    const int64_t count = min_of<int64_t>(options.models - m, kModelsAtOnce);
    int64_t most = 1;
    for (int64_t i = 0; i < count; ++i) {
      some.models[i] = models[m + i], some.firsts[i] = first;
      first += models[m + i].boxes.count, most = max_of(most, models[m + i].boxes.count);
    }
    const dim3 blocks(grid_x(blocks_of(most, kSegmentThreads)), static_cast<unsigned>(count));
    BOXOPS_TRY(launch(load_kernel<T>, blocks, kSegmentThreads, stream, some, options.score_threshold, s));
  }
  return cudaSuccess;
}

template <class T>
int fuse(const FusionModel* models, const FusionRule<T>& options, const FusionResult& result, int64_t n, int64_t* count,
         void* workspace, void* stream) {
  Workspace w(workspace);
  const FusionState<T> s(w, n, options.models);
  const int score_bits = static_cast<int>(8 * sizeof(T)), label_bits = static_cast<int>(8 * result.label_bytes);
  if (n > 0) {
    BOXOPS_TRY(load_all(models, options, s, stream));
    BOXOPS_TRY(sort_by(WeightedScoreKey<T>{s.boxes}, nullptr, score_bits, s.segments, stream));
    BOXOPS_TRY(sort_by(LabelKey{s.labels}, s.segments.order, label_bits, s.segments, stream));
    BOXOPS_TRY(launch(starts_kernel, 1, kCompactThreads, stream, s.segments));
    BOXOPS_TRY(launch(cluster_kernel<T>, static_cast<unsigned>(min_of<int64_t>(n, 1024)), kFusionThreads, stream, s,
                      options, Threshold<T>(options.iou_threshold), model_words(options.models)));
  }
  BOXOPS_TRY(launch(found_kernel<T>, 1, kCompactThreads, stream, s, count));
  if (n == 0) return cudaSuccess;
  BOXOPS_TRY(sort_by(ConfidenceKey<T>{s, count}, nullptr, score_bits, s.segments, stream));
  return launch(emit_kernel<T>, grid_x(blocks_of(n, kSegmentThreads)), kSegmentThreads, stream, s, result, count);
}

}  // namespace

size_t weighted_boxes_fusion_workspace(const FusionModel* models, const FusionOptions& options) {
  Workspace w(nullptr);
  with_compute_type(compute_type(models, options),
                    [&](auto t) { FusionState<decltype(t)>(w, count_boxes(models, options), options.models); });
  return w.used();
}

int weighted_boxes_fusion(const FusionModel* models, const FusionOptions& options, const FusionResult& result,
                          int64_t* count, void* workspace, void* stream) {
  return with_compute_type(compute_type(models, options), [&](auto t) {
    return fuse(models, FusionRule<decltype(t)>(options), result, count_boxes(models, options), count, workspace,
                stream);
  });
}

}  // namespace boxops::cuda
