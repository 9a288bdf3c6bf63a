#include <boxops/sampling.h>

#include <cmath>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {
namespace {

// `matches` becomes int64 and must outlive the result.
Matches check(Framework& framework, const char* op, Array& matches) {
  if (matches.rank() != 1 && matches.rank() != 2) fail(op, "matches of shape [A] or [B, A]", to_string(matches.sizes));
  matches = indices_of(framework, op, "matches", matches);
  const bool batched = matches.rank() == 2;
  return {matches.as<int64_t>(), batched ? matches.sizes[0] : 1, matches.sizes[-1], batched ? matches.strides[0] : 0,
          matches.strides[-1]};
}

// A template, so that nothing refers to CUDA where no CUDA call is compiled.
template <class M>
Array workspace(Framework& framework, const M& matches, int64_t size, Device device) {
  return framework.empty({static_cast<int64_t>(cuda::sampling_workspace(matches, size))}, DType::kUInt8, device);
}

}  // namespace

std::tuple<Array, Array, Array> sample_matches(Framework& framework, Array matches, int64_t size,
                                               double positive_fraction, Array seed) {
  const char* op = "sample_matches";
  const Matches in = check(framework, op, matches);
  if (size < 0) fail(op, "size >= 0", std::to_string(size));
  if (!(positive_fraction >= 0 && positive_fraction <= 1))
    fail(op, "positive_fraction in 0..1", to_string(positive_fraction));
  check_shape(op, "seed", seed, {1}, "[1]");
  seed = indices_of(framework, op, "seed", seed);
  const bool here = seed.device.type == DeviceType::kCPU;
  if (!here) check_device(op, "seed", seed, "matches", matches);
  const Seed number{here ? nullptr : seed.as<int64_t>(), here ? *seed.as<int64_t>() : 0};
  const auto most = static_cast<int64_t>(static_cast<double>(size) * positive_fraction);
  Dims lead = matches.sizes.head(1), sizes = lead;
  sizes.push_back(size);
  Array indices = framework.empty(sizes, DType::kInt64, matches.device);
  Array positives = framework.empty(lead, DType::kInt64, matches.device);
  Array sampled = framework.empty(lead, DType::kInt64, matches.device);
  BOXOPS_DISPATCH(op, matches.device,
                  cpu::sample_matches(in, size, most, number, indices.as<int64_t>(), positives.as<int64_t>(),
                                      sampled.as<int64_t>(), framework.parallel()),
                  cuda::sample_matches(in, size, most, number, indices.as<int64_t>(), positives.as<int64_t>(),
                                       sampled.as<int64_t>(), workspace(framework, in, size, matches.device).data,
                                       framework.stream(matches.device)));
  return {indices, positives, sampled};
}

Array mine_hard_negatives(Framework& framework, Array loss, Array matches, double ratio, int64_t min_negatives) {
  const char* op = "mine_hard_negatives";
  check_floating(op, "loss", loss);
  const Matches in = check(framework, op, matches);
  check_shape(op, "loss", loss, matches.sizes, to_string(matches.sizes).c_str());
  check_device(op, "matches", matches, "loss", loss);
  if (!(ratio >= 0 && std::isfinite(ratio))) fail(op, "a finite ratio >= 0", to_string(ratio));
  if (min_negatives < 0) fail(op, "min_negatives >= 0", std::to_string(min_negatives));
  Array mask = framework.empty(loss.sizes, DType::kBool, loss.device);
  BOXOPS_DISPATCH(
      op, loss.device,
      cpu::mine_hard_negatives(view_scalars(loss), in, ratio, min_negatives, mask.as<uint8_t>(), framework.parallel()),
      cuda::mine_hard_negatives(view_scalars(loss), in, ratio, min_negatives, mask.as<uint8_t>(),
                                workspace(framework, in, 0, loss.device).data, framework.stream(loss.device)));
  return mask;
}

}  // namespace boxops::ops
