// Weighted boxes fusion on the device: a block per label, which settles up to kWarps boxes in a round.
//
// In a round each warp holds one of the next boxes against all clusters. Then warp 0 goes through these boxes in order;
// its lanes hold the clusters changed in this round, and a box joins the better of the best of those and the best found
// before. Where that one has itself been changed since, the round ends before the box.
//
// Floor: 10 operations for each box and cluster before it of its label, by one multiprocessor per label.
#include "common/warp.cuh"
#include "nms/fusion.h"
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

// A block fuses the boxes of one label after another.
template <class T>
__global__ void __launch_bounds__(kThreads) cluster_kernel(FusionState<T> s, FusionRule<T> options, int64_t words) {
  using Best = Indexed<T>;  // an IoU and the cluster's id
  constexpr int64_t kNone = Best::kNone;
  __shared__ Best best[kWarps];
  __shared__ int64_t shared_next, shared_count;
  const int t = static_cast<int>(threadIdx.x), warp = t / 32, lane = t % 32;
  for (int64_t segment = blockIdx.x; segment < *s.segments.count; segment += gridDim.x) {
    const int64_t start = s.segments.starts[segment], n = s.segments.starts[segment + 1] - start;
    Cluster<T>* clusters = s.clusters + start;
    Shape<T>* fused = s.fused + start;
    uint64_t* bits = s.bits + start * words;
    int64_t next = 0, count = 0;
    while (next < n) {
      if (next + warp < n) {
        const FusionBox<T> b = s.boxes[s.segments.order[start + next + warp]];
        Best own{options.iou_threshold, kNone};
        if (b.model >= 0) {
          const Shape<T> shape = shape_of<Measure::kIoU>(Box<T>(b));
          for (int64_t c = lane; c < count; c += 32) {
            const T iou = iou_of(fused[c], shape);
            if (iou > own.value) own = {iou, c};
          }
        }
        own = warp_first(own);
        if (lane == 0) best[warp] = own;
      }
      __syncthreads();
      if (warp == 0) {
        int64_t mine = kNone;  // the cluster that this lane holds
        Shape<T> shape{{T(0), T(0), T(0), T(0)}, T(0), T(0)};
        int changed = 0, k = 0;
        for (; k < kWarps && next + k < n; ++k) {
          const FusionBox<T> b = s.boxes[s.segments.order[start + next + k]];
          if (b.model < 0) continue;
          const Best before = best[k];
          if (before.index != kNone && __any_sync(kFullMask, mine == before.index)) break;
          Best held{options.iou_threshold, kNone};
          if (mine != kNone) {
            const T iou = iou_of(shape, shape_of<Measure::kIoU>(Box<T>(b)));
            if (iou > held.value) held = {iou, mine};
          }
          held = warp_first(held);
          int64_t id = held.before(before) ? held.index : before.index;
          const bool founds = id == kNone;
          if (founds) id = count++;
          int holder = first_lane(mine == id);
          if (holder < 0) holder = changed++;
          if (lane == holder) {
            mine = id;
            if (founds) {
              clusters[id] = found(b);
              for (int64_t word = 0; word < words; ++word) bits[id * words + word] = 0;
            } else {
              Cluster<T> c = clusters[id];
              join(c, b);
              clusters[id] = c;
            }
            bits[id * words + b.model / 64] |= uint64_t(1) << (b.model % 64);
            fused[id] = shape = shape_of<Measure::kIoU>(clusters[id].box);
          }
          __syncwarp();
        }
        if (lane == 0) shared_next = next + k, shared_count = count;
      }
      __syncthreads();
      next = shared_next, count = shared_count;
    }
    for (int64_t c = t; c < count; c += kThreads) {
      const int64_t first = clusters[c].first;
      s.slot[first] = start + c;
      s.confidence[first] = confidence_of(clusters[c], bits + c * words, s.weights, options);
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
