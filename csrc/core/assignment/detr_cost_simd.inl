// The vector loops of detr_cost_cpu.cpp; compiled once per instruction set (common/isa.h).
namespace boxops::BOXOPS_ISA {

// exp(x) for x <= 0, within 2 ulp, and 0 where it would be subnormal; NaN stays. Cody and Waite's reduction and the
// polynomial of Cephes' expf.
inline float exp_of(float x) {
  const float shifted = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer in the low bits
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float poly = 1.9875691500e-4f;
  poly = poly * r + 1.3981999507e-3f;
  poly = poly * r + 8.3334519073e-3f;
  poly = poly * r + 4.1665795894e-2f;
  poly = poly * r + 1.6666665459e-1f;
  poly = poly * r + 5.0000001201e-1f;
  const uint32_t exponent = (detail::bits_as<uint32_t>(shifted) + 127u) << 23;  // the rest of the constant shifts out
  const float power = ((poly * r) * r + r + 1.0f) * detail::bits_as<float>(exponent);
  return x < -87.33f ? 0.0f : power;
}
inline double exp_of(double x) { return std::exp(x); }

// Replaces x by exp(x - max) and returns the sum, in sums of kLanes lanes.
template <class T>
T softmax_sum(T* __restrict__ x, int64_t n, T* max_out) {
  T lane[kSumLanes], max = x[0];
  for (int64_t i = 1; i < n; ++i) max = max_of(max, x[i]);
  *max_out = max;
  for (T& sum : lane) sum = T(0);
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes)
    for (int k = 0; k < kSumLanes; ++k) lane[k] += exp_of(x[i + k] - max);
  for (int k = 0; i + k < n; ++k) lane[k] += exp_of(x[i + k] - max);
  T sum = T(0);
  for (const T part : lane) sum += part;
  return sum;
}

// class_cost[q] = -exp(x - max) / sum.
template <class T>
void softmax_cost(const T* __restrict__ x, const T* __restrict__ max, const T* __restrict__ sum, int n,
                  T* __restrict__ class_cost) {
  for (int q = 0; q < n; ++q) class_cost[q] = -(exp_of(x[q] - max[q]) / sum[q]);
}

template <class T>
void focal_costs(const T* __restrict__ x, int n, T* __restrict__ class_cost) {
  for (int q = 0; q < n; ++q) class_cost[q] = exp_of(-std::abs(x[q]));
  for (int q = 0; q < n; ++q) class_cost[q] = focal_cost(x[q], class_cost[q]);
}

// One ground truth against a tile of queries; guarded for huge boxes.
template <bool guarded, class T>
void cost_row(const Box<T>& gt, const Shape<T>& shape, const Numbers<T>& numbers, const Tile<T>& tile, int n,
              const T* __restrict__ class_cost, T class_weight, T box_weight, T giou_weight, T* __restrict__ out) {
  for (int q = 0; q < n; ++q) {
    const Box<T> box{numbers.cx[q], numbers.cy[q], numbers.w[q], numbers.h[q]};
    const T giou = measure_of<Measure::kGIoU, guarded>(shape, tile[q], T(0), T(0));
    out[q] = detr_cost_of(class_weight, box_weight, giou_weight, class_cost[q], l1_of(gt, box), giou);
  }
}

}  // namespace boxops::BOXOPS_ISA
