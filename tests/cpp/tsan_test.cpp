// The CPU kernels on four threads, for ThreadSanitizer, AddressSanitizer and UBSan: the same bits as on one.
//   tsan_test           all kernels
//   tsan_test race      a planted race, which ThreadSanitizer must report
//   tsan_test overflow  a planted read past an array, which AddressSanitizer must report
//   tsan_test signed    a planted signed overflow, which UBSan must report
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <boxops/boxes.h>
#include <boxops/iou.h>
#include <boxops/nms.h>
#include "common/copy.h"
#include "common/geometry.h"

using namespace boxops;

static int failures = 0;
static std::atomic<int64_t> shared_runs{0};

// Deals ranges of `grain` out to four threads in turn: threads always pay, so that each kernel is cut into single
// items, every thread has work, and nothing between the threads hides a race by ordering them.
class FourThreads final : public Parallel {
 public:
  FourThreads() : Parallel(0) {}
  void run(int64_t n, int64_t grain, Range body) const override {
    if (n <= grain) {
      if (n > 0) body(0, n);
      return;
    }
    ++shared_runs;
    std::vector<std::thread> all;
    for (int64_t i = 0; i < 4; ++i)
      all.emplace_back([=] {
        for (int64_t begin = i * grain; begin < n; begin += 4 * grain) body(begin, std::min(begin + grain, n));
      });
    for (std::thread& t : all) t.join();
  }
};

// f(parallel) -> vector: the same bits on four threads as on one. `shares`: several threads must have had work.
template <class F>
void same(const char* what, bool shares, F f) {
  const auto want = f(Serial());
  const int64_t before = shared_runs;
  const auto got = f(FourThreads());
  const bool equal = got.size() == want.size() &&
                     (got.empty() || std::memcmp(got.data(), want.data(), got.size() * sizeof(got[0])) == 0);
  if (!equal || (shares && shared_runs == before)) {
    std::printf("%s: %s\n", what, equal ? "the work was not shared" : "other bits on four threads");
    ++failures;
  }
}

static std::mt19937_64 generator(7);
static double uniform(double lo, double hi) { return std::uniform_real_distribution<double>(lo, hi)(generator); }

// Exactly as long as the boxes need, so that a read beyond is seen. `wild`: some NaN, inf, inverted, tiny, far off.
template <class T>
std::unique_ptr<T[]> random_boxes(int64_t n, double extent, bool wild) {
  std::unique_ptr<T[]> boxes(new T[4 * n]);
  const T odd[] = {T(NAN), T(INFINITY), T(-INFINITY), T(0), T(-1e30), T(1e30), std::numeric_limits<T>::max(), T(1e-40)};
  for (int64_t i = 0; i < n; ++i) {
    T* b = &boxes[4 * i];
    b[0] = T(uniform(0, extent)), b[1] = T(uniform(0, extent));
    b[2] = b[0] + T(uniform(1, 60)), b[3] = b[1] + T(uniform(1, 60));
    if (wild && i % 5 == 0) b[generator() % 4] = odd[generator() % 8];
  }
  return boxes;
}

template <class T>
void pairs(bool wild) {
  constexpr int64_t batch = 2, n = 150, m = 300, many = 20'000;
  const auto a = random_boxes<T>(batch * n, 100, wild), b = random_boxes<T>(m, 100, wild);
  const Boxes boxes1 = Boxes::contiguous(a.get(), n, Format::kXYXY, batch);
  Boxes boxes2 = Boxes::contiguous(b.get(), m, Format::kCXCYWH, batch);
  boxes2.batch_stride = 0;
  const auto c = random_boxes<T>(many, 100, wild);
  const Boxes long1 = Boxes::contiguous(c.get(), many);
  Boxes long2 = Boxes::contiguous(c.get() + 4 * (many - 1), many);
  long2.box_stride = -4;  // backwards
  for (const Measure measure : {Measure::kIoU, Measure::kIoA, Measure::kGIoU, Measure::kDIoU, Measure::kCIoU}) {
    for (const bool paired : {false, true}) {
      const MeasureOptions options{measure, paired, 0, 1e-7};
      const Boxes &first = paired ? long1 : boxes1, &second = paired ? long2 : boxes2;
      const int64_t size = paired ? many : batch * n * m;
      std::vector<T> grad(size);
      for (T& g : grad) g = T(uniform(-1, 1));
      same("iou", true, [&](const Parallel& parallel) {
        std::vector<T> out(size);
        cpu::iou(first, second, options, out.data(), parallel);
        return out;
      });
      same("iou_backward", true, [&](const Parallel& parallel) {
        std::vector<T> grads(4 * (first.batch * first.count + second.batch * second.count));
        cpu::iou_backward(first, second, options, grad.data(), grads.data(),
                          grads.data() + 4 * first.batch * first.count, parallel);
        return grads;
      });
    }
  }
}

template <class T>
void suppression(const char* what, const T* boxes, int64_t n) {
  std::vector<float> scores(n);
  std::vector<int16_t> groups(n);
  for (float& s : scores) s = static_cast<float>(generator() % 1000);  // with ties
  for (int16_t& g : groups) g = static_cast<int16_t>(generator() % 7 - 3);
  for (const bool grouped : {false, true})
    for (const double threshold : {0.0, 0.3, 0.7, 1.0}) {
      const NmsInput input{Boxes::contiguous(boxes, n), Scalars::contiguous(scores.data(), n), grouped,
                           Scalars::contiguous(groups.data(), n)};
      same(what, grouped, [&](const Parallel& parallel) {
        std::vector<int64_t> keep(n);
        keep.resize(cpu::nms(input, threshold, keep.data(), parallel));
        return keep;
      });
    }
  for (const bool grouped : {false, true}) {
    constexpr int64_t images = 6, most = 30;
    const int64_t each = n / images;
    const NmsInput input{Boxes::contiguous(boxes, each, Format::kXYXY, images),
                         Scalars::contiguous(scores.data(), each), grouped, Scalars::contiguous(groups.data(), each)};
    same("nms_padded", true, [&](const Parallel& parallel) {
      std::vector<int64_t> out(images * (most + 1));
      cpu::nms_padded(input, 0.3, {most, true, 100.0}, out.data(), out.data() + images * most, parallel);
      return out;
    });
  }
}

template <class T>
void elementwise(bool wild) {
  constexpr int64_t n = 20'000;
  const auto boxes = random_boxes<T>(n, 1000, wild);
  const Boxes view = Boxes::contiguous(boxes.get(), n, Format::kXYWH);
  same("box_area", true, [&](const Parallel& parallel) {
    std::vector<T> out(n);
    cpu::box_area(view, out.data(), parallel);
    return out;
  });
  for (const DType type : {DType::kFloat16, DType::kBFloat16, dtype_of<T>()})
    same("box_convert", true, [&](const Parallel& parallel) {
      std::vector<char> out(4 * n * size_of(type));
      cpu::box_convert(view, Format::kCXCYWH, out.data(), type, parallel);
      return out;
    });
  same("clip_boxes", true, [&](const Parallel& parallel) {
    std::vector<T> out(4 * n);
    cpu::clip_boxes(view, 480, 640, out.data(), parallel);
    return out;
  });
  same("copy", true, [&](const Parallel& parallel) {
    std::vector<T> out(4 * n);
    const int64_t size = sizeof(T);
    cpu::copy({boxes.get(), size, 2, {4, n}, {1, 4}}, 4 * n, out.data(), parallel);
    return out;
  });
  std::vector<int64_t> indices(n);
  if (cpu::large_boxes(view, 30, indices.data()) <= 0) ++failures;
}

int main(int argc, char** argv) {
  const std::string planted = argc > 1 ? argv[1] : "";
  if (planted == "race") {
    int64_t sum = 0;
    const auto add = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sum += i;
    };
    FourThreads().run(10'000, 10, add);
    return sum == 0;
  }
  if (planted == "overflow") {
    const auto boxes = random_boxes<float>(10, 100, false);
    std::vector<float> areas(11);
    cpu::box_area(Boxes::contiguous(boxes.get(), 11), areas.data(), Serial());
    return areas[10] == -1;
  }
  if (planted == "signed") {
    const int64_t far = int64_t(1) << 62;
    const float box[4] = {};
    Boxes boxes = Boxes::contiguous(box, 1);
    boxes.batch_stride = far;
    volatile int64_t batch = 4;
    return static_cast<int>(load_box<float>(boxes, batch, 0).x1);
  }
  for (const bool wild : {false, true}) {
    pairs<float>(wild), pairs<double>(wild);
    elementwise<float>(wild), elementwise<double>(wild);
    const auto boxes = random_boxes<float>(20'000, 4000, wild);
    suppression("nms", boxes.get(), 20'000);
    const auto few = random_boxes<double>(2'000, 300, wild);
    suppression("nms of float64", few.get(), 2'000);
  }
  // So many that threads share a group.
  constexpr int64_t most = (1 << 19) + 100;
  const auto many = random_boxes<float>(most, 4000, false);
  std::vector<float> ranks(most);
  for (float& s : ranks) s = uniform(0, 1);
  const NmsInput input{Boxes::contiguous(many.get(), most), Scalars::contiguous(ranks.data(), most), false, {}};
  same("nms of very many", true, [&](const Parallel& parallel) {
    std::vector<int64_t> keep(most);
    keep.resize(cpu::nms(input, 0.3, keep.data(), parallel));
    return keep;
  });
  // Far from the origin for their size, where the cells' numbers are as large as they get.
  std::vector<double> far;
  for (int i = 0; i < 20'000; ++i) {
    const double x = 9e12 + uniform(0, 1), y = -9e12 + uniform(0, 1);
    far.insert(far.end(), {x, y, x + 0.01, y + 0.01});
  }
  suppression("nms far off", far.data(), 20'000);
  // Centres beyond what the sum of two coordinates can hold.
  for (int i = 0; i < 600; ++i) {
    const double x = i < 500 ? uniform(0, 100) : 1.2e308, y = uniform(0, 1000);
    const double w = i < 500 ? 5 : 1e295, h = i < 500 ? 5 : 1e-10;
    std::copy_n(std::vector<double>{x, y, x + w, y + h}.data(), 4, far.data() + 4 * i);
  }
  suppression("nms at the end of float64", far.data(), 600);
  std::printf(failures ? "%d failures\n" : "ok\n", failures);
  return failures != 0;
}
