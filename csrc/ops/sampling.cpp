#include <boxops/sampling.h>

#include <cmath>
#include <random>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {
namespace {

// `matches` becomes int64 and must outlive the result.
Matches check(const Call& call, Array& matches) {
  if (matches.rank() != 1 && matches.rank() != 2) call.fail("matches of shape [A] or [B, A]", to_string(matches.sizes));
  matches = indices_of(call, "matches", matches);
  const bool batched = matches.rank() == 2;
  return {matches.as<int64_t>(), batched ? matches.sizes[0] : 1, matches.sizes[-1], batched ? matches.strides[0] : 0,
          matches.strides[-1]};
}

}  // namespace

std::tuple<Array, Array, Array> sample_matches(Framework& framework, Array matches, int64_t size,
                                               double positive_fraction, std::optional<int64_t> seed,
                                               std::optional<Array> device_seed) {
  const Call call("sample_matches", framework, matches.device);
  const Matches in = check(call, matches);
  check_count(call, "batch_size_per_image", size);
  if (!(positive_fraction >= 0 && positive_fraction <= 1))
    call.fail("positive_fraction in 0..1", to_string(positive_fraction));
  Seed number{nullptr, 0};
  if (device_seed) {
    if (seed) call.fail("seed or device_seed", "both");
    check_shape(call, "device_seed", *device_seed, {1}, "[1]");
    check_device(call, "device_seed", *device_seed, "matches");
    device_seed = indices_of(call, "device_seed", *device_seed);
    number.data = device_seed->as<int64_t>();
  } else if (seed) {
    number.value = *seed;
  } else {
    std::random_device bits;  // 32 at a time
    number.value = static_cast<int64_t>(uint64_t{bits()} << 32 | bits());
  }
  const auto max_positives = static_cast<int64_t>(static_cast<double>(size) * positive_fraction);
  Dims lead = matches.sizes.head(1), sizes = lead;
  sizes.push_back(size);
  Array indices = call.empty(sizes, DType::kInt64);
  Array positives = call.empty(lead, DType::kInt64);
  Array sampled = call.empty(lead, DType::kInt64);
  int64_t *to = indices.as<int64_t>(), *num_positive = positives.as<int64_t>(), *num_sampled = sampled.as<int64_t>();
  call.run(
      [&](const Parallel& parallel) {
        cpu::sample_matches(in, size, max_positives, number, to, num_positive, num_sampled, parallel);
      },
      [&](auto stream) {
        return cuda::sample_matches(in, size, max_positives, number, to, num_positive, num_sampled,
                                    call.workspace(cuda::sample_matches_workspace(in, size)).data, stream);
      });
  return {indices, positives, sampled};
}
BOXOPS_OP(sample_matches, "matches", "batch_size_per_image", "positive_fraction", "seed", "device_seed");

Array mine_hard_negatives(Framework& framework, Array loss, Array matches, double ratio, int64_t min_negatives) {
  const Call call("mine_hard_negatives", framework, loss.device);
  check_floating(call, "loss", loss);
  const Matches in = check(call, matches);
  check_shape(call, "loss", loss, matches.sizes);
  check_device(call, "matches", matches, "loss");
  if (!(ratio >= 0 && std::isfinite(ratio))) call.fail("a finite ratio >= 0", to_string(ratio));
  check_count(call, "min_negatives", min_negatives);
  Array mask = call.empty(loss.sizes, DType::kBool);
  const Scalars losses = scalars_of(loss);
  auto* to = mask.as<uint8_t>();
  call.run([&](const Parallel& parallel) { cpu::mine_hard_negatives(losses, in, ratio, min_negatives, to, parallel); },
           [&](auto stream) {
             return cuda::mine_hard_negatives(losses, in, ratio, min_negatives, to,
                                              call.workspace(cuda::mine_hard_negatives_workspace(losses, in)).data,
                                              stream);
           });
  return mask;
}
BOXOPS_OP(mine_hard_negatives, "loss", "matches", "ratio", "min_negatives");

}  // namespace boxops::ops
