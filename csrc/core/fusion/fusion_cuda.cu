// Weighted boxes fusion on the device: the boxes are sorted by label and score, parts of a label are fused side by side
// as though they were alone and checked against each other, and the clusters are sorted by their confidence.
//
// Floor: a dozen operations for each pair in a label, two or three times, and the largest part, one by one.
#include "fusion/fusion.h"
#include "fusion/fusion_parts.cuh"

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
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    s.weights[number] = weight;
    if (number == 0) *s.progress = {};
  }
  for (const int64_t i : grid_stride(model.boxes.count)) {
    const T score = load<T>(model.scores.data, model.scores.dtype, i * model.scores.stride);
    const Box<T> box = load_box<T>(model.boxes, 0, i);
    const bool used = score >= score_threshold && area(box) > T(0);
    s.boxes[first + i] = {box, score * weight, weight, used ? number : -1, first + i};
    s.labels[first + i] = group_key(model.labels, 0, i);
    s.components.parents[first + i] = static_cast<unsigned long long>(first + i);
    s.marks[first + i] = 0, s.founds[first + i] = false;
  }
}

// Boxes that take no part come last, so that nobody need look at them.
template <class T>
struct WeightedScoreKey {
  const FusionBox<T>* boxes;
  __device__ uint64_t operator()(int64_t i) const {
    return falling_key(boxes[i].model < 0 ? std::numeric_limits<T>::quiet_NaN() : boxes[i].score);
  }
};
struct LabelKey {
  const uint64_t* labels;
  __device__ uint64_t operator()(int64_t i) const { return labels[i]; }
};
// Places that founded no cluster come behind all others.
constexpr uint64_t kNoCluster = ~uint64_t(0);
template <class T>
struct ConfidenceKey {
  static constexpr int kBits = sizeof(T) == sizeof(float) ? 33 : 64;
  FusionState<T> s;
  __device__ uint64_t operator()(int64_t i) const {
    return s.founds[i] ? min_of(falling_key(s.confidence[i]), kNoCluster - 1) : kNoCluster;
  }
};

// A thread writes one result, and the last of these how many there are.
template <class T>
__global__ void emit_kernel(FusionState<T> s, FusionResult result, int64_t* count) {
  const int64_t n = s.segments.n;
  const uint64_t* const keys = s.segments.space.sorted;
  if (blockIdx.x == 0 && threadIdx.x == 0 && (n == 0 || keys[0] == kNoCluster)) *count = 0;
  for (const int64_t i : grid_stride(n)) {
    if (keys[i] == kNoCluster) break;
    if (i + 1 == n || keys[i + 1] == kNoCluster) *count = i + 1;
    const int64_t first = s.segments.order[i];
    const Box<T> b = s.results[first];
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
    int64_t* by_score = s.segments.starts;  // which fusion has no other use for
    BOXOPS_TRY(sort_by(WeightedScoreKey<T>{s.boxes}, nullptr, score_bits, s.segments.space, by_score, stream));
    BOXOPS_TRY(sort_by(LabelKey{s.labels}, by_score, label_bits, s.segments, stream));
    BOXOPS_TRY(fuse_all(s, options, stream));
    BOXOPS_TRY(sort_by(ConfidenceKey<T>{s}, nullptr, ConfidenceKey<T>::kBits, s.segments, stream));
  }
  const unsigned blocks = grid_x(blocks_of(max_of<int64_t>(n, 1), kSegmentThreads));
  return launch(emit_kernel<T>, blocks, kSegmentThreads, stream, s, result, count);
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
