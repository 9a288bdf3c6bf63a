// All ops on fixed pseudo-random inputs: prints a digest of each result's bits. Every compiler, processor and
// instruction set (BOXOPS_ISA) prints the same lines, but for those that say libm, whose exp and log are the
// platform's.
#include <array>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>

#include <boxops/memory.h>
#include <boxops/ops.h>

using namespace boxops;

class Host final : public Framework {
 public:
  Array empty(const Dims& sizes, DType dtype, Device device) override { return allocate(sizes, dtype, device); }
  const Parallel& parallel() override { return serial_; }
  void* stream(Device) override { return nullptr; }

 private:
  Serial serial_;
};

static Host host;

// splitmix64: integers alone, so that inputs are the same everywhere.
static uint64_t random_bits() {
  static uint64_t state = 0;
  uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}
static double uniform(double low, double high) {
  return low + (high - low) * (static_cast<double>(random_bits() >> 11) / 9007199254740992.0);
}
static int64_t integer(int64_t below) { return static_cast<int64_t>(random_bits() % static_cast<uint64_t>(below)); }

template <class T>
Array filled(const Dims& sizes, const std::function<double(int64_t)>& value) {
  Array a = host.empty(sizes, dtype_of<T>(), {});
  for (int64_t i = 0; i < a.numel(); ++i) a.as<T>()[i] = static_cast<T>(value(i));
  return a;
}
template <class T>
Array uniforms(const Dims& sizes, double low, double high) {
  return filled<T>(sizes, [&](int64_t) { return uniform(low, high); });
}
static Array integers(const Dims& sizes, int64_t below, int64_t first = 0) {
  return filled<int64_t>(sizes, [&](int64_t) { return static_cast<double>(first + integer(below)); });
}

// The same array as a batch of one.
static Array image_of(Array a) {
  const Dims sizes = a.sizes, strides = a.strides;
  a.sizes = {1}, a.strides = {0};
  for (int i = 0; i < sizes.count; ++i) a.sizes.push_back(sizes[i]), a.strides.push_back(strides[i]);
  return a;
}

// Boxes of many sizes in a square of 400; one in 32 is degenerate, not finite or huge.
template <class T>
Array random_boxes(const Dims& sizes) {
  double box[4] = {};
  return filled<T>(sizes, [&](int64_t i) {
    if (i % 4 == 0) {
      for (double& v : box) v = uniform(0, 400);
      const double side = std::ldexp(1.0, static_cast<int>(integer(8)));
      box[2] = box[0] + uniform(0.3, 1) * side, box[3] = box[1] + uniform(0.3, 1) * side;
      const double odd[] = {box[0], -box[2], NAN, INFINITY, std::is_same_v<T, float> ? 3e38 : 1e308, 0};
      if (integer(32) == 0) box[integer(4)] = odd[integer(6)];
    }
    return box[i % 4];
  });
}
template <class T>
Array random_rotated(int64_t n) {
  return filled<T>({n, 5}, [](int64_t i) {
    return i % 5 < 2 ? uniform(0, 200) : i % 5 < 4 ? uniform(2, 60) : integer(4) ? uniform(-180, 180) : 90;
  });
}

// FNV-1a. All NaN are one, since processors differ in which they make.
static uint64_t digest(uint64_t hash, const Array& a) {
  const auto take = [&](uint64_t bits) {
    for (int i = 0; i < 64; i += 8) hash = (hash ^ (bits >> i & 0xff)) * 0x100000001b3;
  };
  for (int i = 0; i < a.rank(); ++i) take(static_cast<uint64_t>(a.sizes[i]));
  for (int64_t i = 0; i < a.numel(); ++i) {
    uint64_t bits = 0;
    const auto size = static_cast<size_t>(size_of(a.dtype));
    std::memcpy(&bits, a.as<char>() + static_cast<size_t>(i) * size, size);
    const bool is_nan = (a.dtype == DType::kFloat32 && std::isnan(a.as<float>()[i])) ||
                        (a.dtype == DType::kFloat64 && std::isnan(a.as<double>()[i]));
    take(is_nan ? ~uint64_t(0) : bits);
  }
  return hash;
}
template <class... A>
uint64_t digest(uint64_t hash, const std::tuple<A...>& all) {
  std::apply([&](const auto&... a) { ((hash = digest(hash, a)), ...); }, all);
  return hash;
}

template <class Enum>
std::array<Enum, kNames<Enum>.size()> all() {
  std::array<Enum, kNames<Enum>.size()> values;
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<Enum>(i);
  return values;
}

static const char* type;
template <class R>
void print(const char* name, const R& result) {
  std::printf("%s %s %016" PRIx64 "\n", name, type, digest(0xcbf29ce484222325, result));
}

template <class T>
void overlaps() {
  const Array a = random_boxes<T>({150, 4}), b = random_boxes<T>({333, 4}), grad = uniforms<T>({150, 333}, -1, 1);
  for (const Measure measure : all<Measure>()) {
    const char* name = kNames<Measure>[static_cast<size_t>(measure)];
    print(name, ops::iou(host, a, b, measure, false, Format::kXYXY, 1e-7, false));
    print(name, ops::iou(host, a, a, measure, true, Format::kXYWH, 1e-7, true));
    print(name, ops::iou_backward(host, grad, a, b, measure, false, Format::kCXCYWH, 1e-7, false));
  }
  const Array r = random_rotated<T>(200), s = random_rotated<T>(300), scores = uniforms<T>({300}, 0, 1);
  print("rotated_box_iou", ops::rotated_box_iou(host, r, s, false));
  print("rotated_nms", ops::rotated_nms(host, s, scores, 0.2));
}

template <class T>
void suppression() {
  const int64_t n = 4000;
  const Array boxes = random_boxes<T>({n, 4}), labels = integers({n}, 5);
  const Array scores = filled<T>({n}, [](int64_t) { return static_cast<double>(integer(1500)) / 1500; });
  for (const double t : {0.0, 0.3, 0.5, 0.9}) {
    print("nms", ops::nms(host, boxes, scores, t));
    print("batched_nms", ops::batched_nms(host, boxes, scores, labels, t));
    print("nms_padded", ops::nms_padded(host, image_of(boxes), image_of(scores), t, 100, image_of(labels), 0.1));
  }
  for (const SoftNmsMethod method : all<SoftNmsMethod>())
    print("soft_nms", ops::soft_nms(host, boxes, scores, 0.3, method, 0.5, 0.01, labels));
  const std::vector<Array> both{random_boxes<T>({300, 4}), random_boxes<T>({200, 4})};
  const std::vector<Array> their_scores{uniforms<T>({300}, 0, 1), uniforms<T>({200}, 0, 1)};
  const std::vector<Array> their_labels{integers({300}, 3), integers({200}, 3)};
  for (const Confidence confidence : all<Confidence>())
    print("weighted_boxes_fusion",
          ops::weighted_boxes_fusion(host, both, their_scores, their_labels, {1, 2}, 0.5, 0.05, confidence, false));
  const Array of_two = random_boxes<T>({2, 500, 4}), class_scores = uniforms<T>({2, 500, 7}, 0, 1);
  print("detect", ops::detect(host, of_two, class_scores, 0.3, 0.5, 100, 50, 2.0, false));
  const Array logits = uniforms<T>({2, 700}, -6, 6), deltas = uniforms<T>({2, 700, 4}, -1, 1);
  print("generate_proposals",
        ops::generate_proposals(host, logits, deltas, random_boxes<T>({700, 4}), {500, 200}, {300, 400, 400, 300}, 300,
                                100, 0.7, 0.1, 1, {1, 1, 1, 1}, 4.135));
}

template <class T>
void assignment() {
  const Array anchors = random_boxes<T>({3000, 4}), gt = random_boxes<T>({40, 4});
  print("match_max_iou", ops::match_max_iou(host, anchors, gt, 0.5, 0.3, true, std::nullopt, random_boxes<T>({5, 4}),
                                            std::nullopt, 0.5));
  print("match_greedy", ops::match_greedy(host, anchors, gt, 0.4, std::nullopt));
  print("match_greedy_matrix", ops::match_greedy_matrix(host, uniforms<T>({300, 20}, 0, 1), 0.4));
  const Array matches = integers({2, 3000}, 6, -4);
  print("sample_matches", ops::sample_matches(host, matches, 256, 0.5, 7, {}));
  print("mine_hard_negatives", ops::mine_hard_negatives(host, uniforms<T>({2, 3000}, 0, 5), matches, 0.1, 3));
  print("linear_sum_assignment",
        ops::linear_sum_assignment(host, uniforms<T>({3, 60, 90}, 0, 1), false, {}, OnInvalid::kRaise));
  const Array logits = uniforms<T>({2, 50, 30}, -5, 5), queries = uniforms<T>({2, 50, 4}, 0.1, 0.6);
  const Array targets = uniforms<T>({9, 4}, 0.1, 0.6), labels = integers({9}, 30);
  const Array offsets = filled<int64_t>({3}, [](int64_t i) { return static_cast<double>(i * i + 5 * (i == 2)); });
  for (const bool focal : {false, true})
    print(focal || sizeof(T) == 8 ? "detr_cost(libm)" : "detr_cost",
          ops::detr_cost(host, logits, queries, labels, targets, offsets, 1, 5, 2, focal));
}

template <class T>
void pooling() {
  const int64_t k = 40;
  const Array maps = uniforms<T>({2, 49 * 3, 25, 34}, -1, 1),
              rois = filled<T>({k, 5}, [](int64_t i) {
                return i % 5 == 0 ? static_cast<double>(integer(2)) : uniform(-20, 200) + 100.0 * (i % 5 > 2);
              });
  const Array grad = uniforms<T>({k, 49 * 3, 7, 7}, -1, 1), narrow = uniforms<T>({k, 3, 7, 7}, -1, 1);
  print("boxes_to_rois", ops::boxes_to_rois(host, maps, {uniforms<T>({20, 4}, -20, 200), uniforms<T>({9, 4}, -20, 200)},
                                            Pooling::kRoiAlign));
  print("roi_align", ops::roi_align(host, maps, rois, 7, 7, 0.125, 2, true));
  print("roi_align", ops::roi_align(host, maps, rois, 7, 7, 0.125, -1, false));
  print("roi_align_backward", ops::roi_align_backward(host, grad, rois, 2, 25, 34, 0.125, 2, true));
  print("ps_roi_align", ops::ps_roi_align(host, maps, rois, 7, 7, 0.125, 2));
  print("ps_roi_align_backward", ops::ps_roi_align_backward(host, narrow, rois, 2, 25, 34, 0.125, 2));
  const auto pooled = ops::roi_pool_with_argmax(host, maps, rois, 7, 7, 0.125);
  print("roi_pool", ops::roi_pool(host, maps, rois, 7, 7, 0.125));
  print("roi_pool_with_argmax", pooled);
  print("roi_pool_backward", ops::roi_pool_backward(host, grad, std::get<1>(pooled), rois, 2, 25, 34, 0.125));
  print("ps_roi_pool", ops::ps_roi_pool(host, maps, rois, 7, 7, 0.125));
  print("ps_roi_pool_backward", ops::ps_roi_pool_backward(host, narrow, rois, 2, 25, 34, 0.125));
  print("multiscale_roi_align",
        ops::multiscale_roi_align(host, {uniforms<T>({2, 16, 50, 68}, -1, 1), uniforms<T>({2, 16, 25, 34}, -1, 1)},
                                  rois, 7, 7, {0.25, 0.125}, 2, false, 224, 4));
}

template <class T>
void elementwise() {
  const Array boxes = random_boxes<T>({500, 4}), anchors = random_boxes<T>({500, 4}),
              codes = uniforms<T>({500, 4}, -3, 3);
  const Array grad = uniforms<T>({500, 4}, -1, 1);
  print("box_area", ops::box_area(host, boxes, Format::kXYXY));
  for (const Format from : all<Format>())
    for (const Format to : all<Format>()) print("box_convert", ops::box_convert(host, boxes, from, to));
  print("clip_boxes_to_image", ops::clip_boxes_to_image(host, boxes, 300, 200));
  print("remove_small_boxes", ops::remove_small_boxes(host, boxes, 4));
  for (const Coding coding : all<Coding>()) {
    const std::vector<double> weights{10, 10, 5, 5}, stride(coding == Coding::kRCNN ? 0 : 2, 16.0);
    print("encode_boxes", ops::encode_boxes(host, boxes, anchors, coding, weights, stride));
    print("decode_boxes", ops::decode_boxes(host, codes, anchors, coding, weights, stride, 4, {300, 200}));
    print("encode_boxes_backward",
          ops::encode_boxes_backward(host, grad, boxes, anchors, coding, weights, stride, true));
    print("decode_boxes_backward",
          ops::decode_boxes_backward(host, grad, codes, anchors, coding, weights, stride, 4, {}, true));
  }
  print("multibox_anchors", ops::multibox_anchors(host, boxes, 7, 9, {0.2, 0.5}, {1, 2, 0.5}, true));
  print("grid_anchors", ops::grid_anchors(host, boxes, {7, 9}, {16, 16}, {32, 64}, {2}, {0.5, 1, 2}, {3}));
  print("cell_anchors", ops::cell_anchors(host, boxes, 7, 9, {10, 13, 33, 23}, 16, 16));
  const Array masks = uniforms<T>({20, 28, 28}, 0, 1), around = random_boxes<T>({20, 4});
  const Array pasted = ops::paste_masks(host, masks, around, 200, 300, 1, std::nullopt);
  print("paste_masks", pasted);
  print("paste_masks", ops::paste_masks(host, masks, around, 200, 300, 1, 0.5));
  print("masks_to_boxes", ops::masks_to_boxes(host, pasted));
}

template <class T>
void run() {
  type = name_of(dtype_of<T>());
  overlaps<T>(), suppression<T>(), assignment<T>(), pooling<T>(), elementwise<T>();
}

int main() {
  try {
    run<float>();
    run<double>();
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
