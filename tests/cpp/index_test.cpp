// The core from C++, without Python, and its index arithmetic past 2^31 and 2^32.
//
// Sizes are real but memory is not: arrays are sparse mappings of which only the pages that are touched
// exist, and LastRange runs only the last task of a kernel. What is run is thus the kernel's own index
// arithmetic at its far end; the tasks before it are not run.
#include <sys/mman.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <boxops/boxes.h>
#include <boxops/iou.h>
#include <boxops/nms.h>
#include "common/copy.h"
#include "common/geometry.h"

using namespace boxops;

static int failures = 0;
#define CHECK(...) \
  ((__VA_ARGS__) ? void() : (++failures, void(std::printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #__VA_ARGS__))))

constexpr int64_t k16 = int64_t(1) << 16, k20 = int64_t(1) << 20, k32 = int64_t(1) << 32;

class LastRange final : public Parallel {
 public:
  LastRange() : Parallel(0) {}
  void run(int64_t n, int64_t, Range body) const override {
    tasks = n;
    if (n > 0) body(n - 1, n);
  }
  mutable int64_t tasks = -1;
};

// Which grain `share` asks of a subclass: 0 if none, as the caller does all.
class Asked final : public Parallel {
 public:
  using Parallel::Parallel;
  void run(int64_t n, int64_t asked, Range body) const override {
    grain = asked;
    body(0, n);
  }
  mutable int64_t grain = 0;
};

static void threads_where_they_pay() {
  const auto grain_of = [](int64_t n, double item_ns, double wake_ns) {
    const Asked asked(wake_ns);
    int64_t done = 0;
    asked.share(n, item_ns, [&](int64_t begin, int64_t end) { done += end - begin; });
    CHECK(done == n);
    return asked.grain;
  };
  CHECK(grain_of(0, 1e9, 10e3) == 0 && grain_of(1, 1e9, 10e3) == 0);  // nothing to divide
  CHECK(grain_of(39'999, 1, 10e3) == 0 && grain_of(40'000, 1, 10e3) == 20'000);
  CHECK(grain_of(2, 20e3, 10e3) == 1 && grain_of(3, 13e3, 10e3) == 0);
  CHECK(grain_of(k32 * k20, 0.1, 10e3) == 200'000 && grain_of(100, 1e300, 10e3) == 1);
  CHECK(grain_of(2, 0, 10e3) == 0 && grain_of(100, 5, 0) == 1 && grain_of(100, 0, 0) == 100);
  CHECK(grain_of(20'000, 2, 100e3) == 0);  // 20,000 boxes to encode, with the default
}

// Zeros that take memory only where they are touched.
template <class T>
class Sparse {
 public:
  explicit Sparse(int64_t count) : bytes_(count * sizeof(T)) {
    void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
      std::printf("skipped: no sparse mapping of %zu bytes to be had\n", bytes_);
      std::exit(77);
    }
    data = static_cast<T*>(p);
  }
  ~Sparse() { munmap(data, bytes_); }
  T& operator[](int64_t i) { return data[i]; }
  T* data;

 private:
  size_t bytes_;
};

constexpr MeasureOptions kPairwise{Measure::kIoU, false, 0, 0}, kPaired{Measure::kIoU, true, 0, 0};

static void without_python() {
  const float boxes[] = {0, 0, 10, 10, 0, 0, 10, 5, 20, 20, 30, 30}, scores[] = {0.5f, 0.9f, 0.7f};
  const Boxes view = Boxes::contiguous(boxes, 3);
  float out[9];
  cpu::iou(view, view, kPairwise, out, Serial());
  const float want[] = {1, 0.5f, 0, 0.5f, 1, 0, 0, 0, 1};
  for (int i = 0; i < 9; ++i) CHECK(out[i] == want[i]);
  int64_t keep[3];
  const NmsInput input{view, Scalars::contiguous(scores, 3), false, {}};
  CHECK(cpu::nms(input, 0.4, keep, Serial()) == 2);
  CHECK(keep[0] == 1 && keep[1] == 2);
  CHECK(cpu::nms(input, 0.5, keep, Serial()) == 3);
}

// N x M = 2^34, boxes 2^15 elements apart: both output and input offsets pass 2^32.
static void pairwise() {
  constexpr int64_t n = int64_t(1) << 17, stride = 1 << 15;
  Sparse<float> boxes(n * stride), out(n * n);
  for (int64_t i = n - 256; i < n; ++i) boxes[i * stride + 2] = 1, boxes[i * stride + 3] = static_cast<float>(n - i);
  Boxes view = Boxes::contiguous(boxes.data, n);
  view.box_stride = stride;
  const LastRange last;
  cpu::iou(view, view, kPairwise, out.data, last);
  CHECK(last.tasks == (n / 64) * (n / 256));
  CHECK(out[n * n - 1] == 1);                                                 // the last box with itself: heights 1, 1
  CHECK(out[n * n - 2] == 0.5f);                                              // 1, 2
  CHECK(out[(n - 64) * n + n - 256] == 64.0f / 256);                          // the first pair of the last task
  CHECK(out[(n - 64) * n + n - 257] == 0 && out[(n - 65) * n + n - 1] == 0);  // nothing beside the task
  CHECK(out[0] == 0);
}

// batch x N x M = 2^32 + 2^16 and a batch stride of 2^16: batch offsets pass 2^32 on both sides.
static void batches() {
  constexpr int64_t batch = k16 + 1, n = 256;
  Sparse<float> boxes(batch * k16), out(batch * n * n);
  for (int64_t i = 0; i < n; ++i) {
    float* b = &boxes[(batch - 1) * k16 + 4 * i];
    b[2] = 1, b[3] = static_cast<float>(i + 1);
  }
  Boxes view = Boxes::contiguous(boxes.data, n, Format::kXYXY, batch);
  view.batch_stride = k16;
  CHECK(load_box<float>(view, batch - 1, n - 1).y2 == 256);
  const LastRange last;
  cpu::iou(view, view, kPairwise, out.data, last);
  CHECK(out[batch * n * n - 1] == 1 && out[batch * n * n - 256] == 1.0f / 256);
  CHECK(out[(batch - 1) * n * n - 1] == 0 && out[n * n - 1] == 0);
}

// 2^32 pairs: also N x N = 2^64, which is 0 in 64 bits.
static void paired() {
  Sparse<float> numbers(k32 + 4), out(k32);
  for (int i = 0; i < 4; ++i) numbers[k32 - 1 + i] = static_cast<float>(i >= 2 ? i : 0);  // the last box: 0, 0, 2, 3
  Boxes view = Boxes::contiguous(numbers.data, k32);
  view.box_stride = 1;  // boxes overlap in memory
  const LastRange last;
  cpu::iou(view, view, kPaired, out.data, last);
  CHECK(last.tasks == k32 / 256);
  CHECK(out[k32 - 1] == 1);
  CHECK(out[0] == 0);
}

// Gradients of 2^20 + 1 batch items of 64 x 64 pairs: 2^32 + 2^12 of them.
static void gradients() {
  constexpr int64_t batch = k20 + 1, n = 64;
  Sparse<float> grad(batch * n * n), grad1(batch * n * 4), grad2(batch * n * 4);
  const float box[] = {0, 0, 2, 2};
  Boxes view = Boxes::contiguous(box, n, Format::kXYXY, batch);
  view.batch_stride = view.box_stride = 0;  // the same box everywhere
  grad[batch * n * n - 1] = 1;
  const LastRange last;
  cpu::iou_backward(view, view, kPairwise, grad.data, grad1.data, grad2.data, last);
  float want[4], alone = 1;
  const Boxes one = Boxes::contiguous(box, 1);
  float other[4];
  cpu::iou_backward(one, one, kPairwise, &alone, want, other, Serial());
  for (int i = 0; i < 4; ++i)
    CHECK(grad1[batch * n * 4 - 4 + i] == want[i] && grad2[batch * n * 4 - 4 + i] == other[i]);
  CHECK(std::isfinite(want[2]));
  CHECK(grad1[batch * n * 4 - 8] == 0);
}

// 2^32 + 1 boxes: 4 i passes 2^34.
static void elementwise() {
  constexpr int64_t n = k32 + 1;
  const LastRange last;
  {
    Sparse<float> out(n);
    Sparse<float> numbers(n + 3);
    numbers[n + 1] = 5, numbers[n + 2] = 7;
    Boxes view = Boxes::contiguous(numbers.data, n);
    view.box_stride = 1;
    cpu::box_area(view, out.data, last);
    CHECK(out[n - 1] == 35 && out[0] == 0);
  }
  Sparse<uint8_t> numbers(4 * n);
  for (int i = 0; i < 4; ++i) numbers[4 * n - 4 + i] = static_cast<uint8_t>(50 + 50 * i);
  const Boxes view = Boxes::contiguous(numbers.data, n);
  Sparse<uint8_t> clipped(4 * n);
  cpu::clip_boxes(view, 180, 120, clipped.data, last);
  CHECK(clipped[4 * n - 4] == 50 && clipped[4 * n - 3] == 100 && clipped[4 * n - 2] == 120);
  CHECK(clipped[4 * n - 1] == 180 && clipped[4 * n - 5] == 0);
  Sparse<uint16_t> half(4 * n);
  cpu::box_convert(view, Format::kXYWH, half.data, DType::kFloat16, last);
  CHECK(half[4 * n - 2] == detail::float_to_half(100) && half[4 * n - 5] == 0);
}

// nms_padded: 2^20 + 1 images of 4096 places each; boxes and scores 4096 elements apart.
static void padded() {
  constexpr int64_t batch = k20 + 1, room = 4096, n = 2;
  Sparse<float> boxes(batch * room), scores(batch * room);
  Sparse<int64_t> indices(batch * room), counts(batch), labels(batch * room);
  float* b = &boxes[(batch - 1) * room];
  b[2] = b[3] = b[6] = b[7] = 1;
  scores[(batch - 1) * room + 1] = 1;
  NmsInput input{Boxes::contiguous(boxes.data, n, Format::kXYXY, batch), Scalars::contiguous(scores.data, n), true,
                 Scalars::contiguous(labels.data, n)};
  input.boxes.batch_stride = input.scores.batch_stride = input.groups.batch_stride = room;
  const LastRange last;
  cpu::nms_padded(input, 0.5, {room, false, 0}, indices.data, counts.data, last);
  CHECK(counts[batch - 1] == 1 && indices[(batch - 1) * room] == 1 && indices[(batch - 1) * room + 1] == -1);
  CHECK(indices[batch * room - 1] == -1 && indices[(batch - 1) * room - 1] == 0 && counts[0] == 0);
  scores[(batch - 1) * room] = 1, labels[(batch - 1) * room] = 9;  // a tie, another group: both stay
  cpu::nms_padded(input, 0.5, {room, false, 0}, indices.data, counts.data, last);
  CHECK(counts[batch - 1] == 2 && indices[(batch - 1) * room] == 0);
}

// nms of few boxes, far apart in memory and walked backwards.
static void far_boxes() {
  constexpr int64_t n = 3, stride = k32;
  Sparse<int8_t> boxes(n * stride), groups(n * stride);
  for (int64_t i = 0; i < n; ++i) boxes[i * stride + 2] = boxes[i * stride + 3] = 1;
  groups[2 * stride] = 1;
  const float scores[] = {1, 2, 3};
  NmsInput input{Boxes::contiguous(&boxes[2 * stride], n), Scalars::contiguous(scores, n), true,
                 Scalars::contiguous(&groups[2 * stride], n)};
  input.boxes.box_stride = input.groups.stride = -stride;
  int64_t keep[n];
  CHECK(cpu::nms(input, 0.5, keep, Serial()) == 2);
  CHECK(keep[0] == 2 && keep[1] == 0);
}

static void copies() {
  // sizes 3 x 2^31 x 2, the last dim read backwards, the first one 2^33 elements apart.
  const StridedView v{nullptr, 1, 3, {3, int64_t(1) << 31, 2}, {int64_t(1) << 33, 2, -1}};
  CHECK(source_of(v, 0) == 0 && source_of(v, 1) == -1 && source_of(v, 2) == 2);
  CHECK(source_of(v, k32) == int64_t(1) << 33);
  CHECK(source_of(v, 3 * k32 - 1) == 2 * (int64_t(1) << 33) + 2 * ((int64_t(1) << 31) - 1) - 1);
  constexpr int64_t rows = k20 + 1, columns = 1 << 12;
  Sparse<uint8_t> from(rows * columns), to(rows * columns);
  from[rows * columns - 1] = 42;
  const LastRange last;
  cpu::copy({&from[0], 1, 2, {columns, rows}, {1, columns}}, rows * columns, to.data, last);  // a transpose
  CHECK(to[rows * columns - 1] == 42 && to[0] == 0);
}

int main() {
  threads_where_they_pay();
  without_python();
  pairwise();
  batches();
  paired();
  gradients();
  elementwise();
  padded();
  far_boxes();
  copies();
  std::printf(failures ? "%d checks failed\n" : "ok\n", failures);
  return failures != 0;
}
