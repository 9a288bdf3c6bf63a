// torchvision's operators in a program without Python: none until it asks for them.
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdio>

#include <boxops/torchvision.h>

namespace {

using torch::stable::Tensor;
using torch::stable::detail::from;

Tensor tensor(float* data, std::array<int64_t, 2> sizes, int64_t rank) {
  const std::array<int64_t, 2> strides{rank == 2 ? sizes[1] : 1, 1};
  AtenTensorHandle handle;
  aoti_torch_create_tensor_from_blob(data, rank, sizes.data(), strides.data(), 0, aoti_torch_dtype_float32(),
                                     aoti_torch_device_type_cpu(), 0, &handle);
  return Tensor(handle);
}

// How many boxes torchvision::nms keeps, or -1 where there is no such operator.
int64_t kept() {
  float boxes[] = {0, 0, 10, 10, 0, 0, 10, 9, 20, 20, 30, 30}, scores[] = {0.5f, 0.9f, 0.7f};
  std::array<StableIValue, 3> stack{from(tensor(boxes, {3, 4}, 2)), from(tensor(scores, {3}, 1)), from(0.5)};
  if (torch_call_dispatcher("torchvision::nms", "", stack.data(), TORCH_ABI_VERSION) != 0) return -1;
  return torch::stable::detail::to<Tensor>(stack[0]).numel();
}

}  // namespace

int main() {
  const int64_t before = kept();
  const int first = boxops_provide_torchvision_ops(), second = boxops_provide_torchvision_ops();
  std::printf("%d, %d %d, %d\n", int(before), first, second, int(kept()));
}
