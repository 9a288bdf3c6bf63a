// Weighted boxes fusion on the device: a block per label, which settles up to kWarps boxes in a round.
//
// In a round each warp holds one of the next boxes against all clusters. Then warp 0 goes through these boxes in order;
// its lanes hold the clusters changed in this round, and a box joins the better of the best of those and the best found
// before. Where that one has itself been changed since, the round ends before the box.
//
// Floor: 10 operations for each box and cluster before it of its label, by one multiprocessor per label.
#include "common/warp.cuh"
#include "fusion/fusion.h"
#include "nms/segments.cuh"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;

template <class T>
struct FusionState {
  Segments segments;
  FusionBox<T>* boxes;  // by place; model -1: does not take part
  uint64_t* labels;     // by place
  T* weights;           // by model
  // By segment and age:
  Cluster<T>* clusters;
  Shape<T>* fused;
  uint64_t* bits;
  // By the place of the first box; slot -1: no cluster's first.
  int64_t* slot;
  T* confidence;
  int64_t* found;  // the places of first boxes, rising

  FusionState(Workspace& w, int64_t n, int64_t models)
      : segments(w, n),
        boxes(w.take<FusionBox<T>>(n)),
        labels(w.take<uint64_t>(n)),
        weights(w.take<T>(models)),
        clusters(w.take<Cluster<T>>(n)),
        fused(w.take<Shape<T>>(n)),
        bits(w.take<uint64_t>(n * model_words(models))),
        slot(w.take<int64_t>(n)),
        confidence(w.take<T>(n)),
        found(w.take<int64_t>(n)) {}
};

// A thread loads one box of a model whose boxes start at `first`.
template <class T>
__global__ void load_kernel(FusionModel model, int64_t number, int64_t first, T score_threshold, FusionState<T> s) {
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

// The boxes and clusters of one label.
template <class T>
struct Label {
  int64_t start, n;  // boxes
  const FusionBox<T>* boxes;
  const int64_t* order;
  Cluster<T>* clusters;
  Shape<T>* fused;
  uint64_t* bits;
  int64_t words;  // of bits, of a cluster

  __device__ Label(const FusionState<T>& s, int64_t segment, int64_t words)
      : start(s.segments.starts[segment]),
        n(s.segments.starts[segment + 1] - start),
        boxes(s.boxes),
        order(s.segments.order + start),
        clusters(s.clusters + start),
        fused(s.fused + start),
        bits(s.bits + start * words),
        words(words) {}

  __device__ FusionBox<T> box(int64_t i) const { return boxes[order[i]]; }

  // A thread adds a box to a cluster.
  __device__ void add(int64_t id, const FusionBox<T>& b, bool is_new) const {
    if (is_new) {
      clusters[id] = found(b);
      for (int64_t word = 0; word < words; ++word) bits[id * words + word] = 0;
    } else {
      Cluster<T> c = clusters[id];
      join(c, b);
      clusters[id] = c;
    }
    bits[id * words + b.model / 64] |= uint64_t(1) << (b.model % 64);
    fused[id] = shape_of<Measure::kIoU>(clusters[id].box);
  }
};

template <class T>
using Best = Indexed<T>;  // an IoU and the cluster's id; kNone: the box founds one

template <class T>
struct ClusterShared {
  Best<T> best[kWarps];  // of the round's boxes, among the clusters as they were before it
  int64_t next, count;   // the first box and the number of clusters after it
};

// A warp finds the best cluster of one box.
template <class T>
__device__ Best<T> best_cluster(const Label<T>& label, const FusionBox<T>& b, int64_t count, T iou_threshold) {
  Best<T> own{iou_threshold, Best<T>::kNone};
  if (b.model >= 0) {
    const Shape<T> shape = shape_of<Measure::kIoU>(Box<T>(b));
    for (int64_t c = threadIdx.x % 32; c < count; c += 32) {
      const T iou = iou_of(label.fused[c], shape);
      if (iou > own.value) own = {iou, c};
    }
  }
  return warp_first(own);
}

// A warp takes the round's boxes in order, up to one whose best cluster the round has changed; sets what comes next. A
// lane holds one changed cluster.
template <class T>
__device__ void join_boxes(const Label<T>& label, int64_t next, int64_t count, T iou_threshold,
                           ClusterShared<T>& shared) {
  constexpr int64_t kNone = Best<T>::kNone;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int64_t held = kNone;
  Shape<T> shape{{T(0), T(0), T(0), T(0)}, T(0), T(0)};
  int changed = 0, k = 0;
  for (; k < kWarps && next + k < label.n; ++k) {
    const FusionBox<T> b = label.box(next + k);
    if (b.model < 0) continue;
    const Best<T> before = shared.best[k];
    if (before.index != kNone && __any_sync(kFullMask, held == before.index)) break;
    Best<T> best{iou_threshold, kNone};
    if (held != kNone) {
      const T iou = iou_of(shape, shape_of<Measure::kIoU>(Box<T>(b)));
      if (iou > best.value) best = {iou, held};
    }
    best = warp_first(best);
    int64_t id = best.before(before) ? best.index : before.index;
    const bool is_new = id == kNone;
    if (is_new) id = count++;
    int holder = first_lane(held == id);
    if (holder < 0) holder = changed++;
    if (lane == holder) {
      label.add(id, b, is_new);
      held = id, shape = label.fused[id];
    }
    __syncwarp();
  }
  if (lane == 0) shared.next = next + k, shared.count = count;
}

// A block fuses the boxes of one label after another.
template <class T>
__global__ void __launch_bounds__(kThreads) cluster_kernel(FusionState<T> s, FusionRule<T> options, int64_t words) {
  __shared__ ClusterShared<T> shared;
  const int t = static_cast<int>(threadIdx.x), warp = t / 32, lane = t % 32;
  for (int64_t segment = blockIdx.x; segment < *s.segments.count; segment += gridDim.x) {
    const Label<T> label(s, segment, words);
    int64_t next = 0, count = 0;
    while (next < label.n) {
      if (next + warp < label.n) {
        const Best<T> best = best_cluster(label, label.box(next + warp), count, options.iou_threshold);
        if (lane == 0) shared.best[warp] = best;
      }
      __syncthreads();
      if (warp == 0) join_boxes(label, next, count, options.iou_threshold, shared);
      __syncthreads();
      next = shared.next, count = shared.count;
    }
    for (int64_t c = t; c < count; c += kThreads) {
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
int fuse(const FusionModel* models, const FusionRule<T>& options, const FusionResult& result, int64_t n, int64_t* count,
         void* workspace, void* stream) {
  Workspace w(workspace);
  const FusionState<T> s(w, n, options.models);
  const int score_bits = static_cast<int>(8 * sizeof(T)), label_bits = static_cast<int>(8 * result.label_bytes);
  if (n > 0) {
    int64_t first = 0;
    for (int64_t m = 0; m < options.models; ++m) {
      const int64_t blocks = max_of<int64_t>(blocks_of(models[m].boxes.count, kSegmentThreads), 1);
      BOXOPS_TRY(launch(load_kernel<T>, grid_x(blocks), kSegmentThreads, stream, models[m], m, first,
                        options.score_threshold, s));
      first += models[m].boxes.count;
    }
    BOXOPS_TRY(sort_by(WeightedScoreKey<T>{s.boxes}, nullptr, score_bits, s.segments, stream));
    BOXOPS_TRY(sort_by(LabelKey{s.labels}, s.segments.order, label_bits, s.segments, stream));
    BOXOPS_TRY(launch(starts_kernel, 1, kCompactThreads, stream, s.segments, false));
    BOXOPS_TRY(launch(cluster_kernel<T>, static_cast<unsigned>(min_of<int64_t>(n, 1024)), kThreads, stream, s, options,
                      model_words(options.models)));
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
