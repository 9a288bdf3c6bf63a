// run_models scripted.pt packaged.pt2: the same boxes through a TorchScript model and an AOTInductor package.
#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/serialization/import.h>

#include <iostream>

int main(int, char** argv) {
  const at::Tensor boxes =
      at::tensor({0., 0., 10., 10., 0., 0., 10., 5., 20., 20., 30., 30.}).reshape({3, 4}).to(at::kFloat);
  const at::Tensor scores = at::tensor({0.5, 0.9, 0.7}).to(at::kFloat);

  torch::jit::Module scripted = torch::jit::load(argv[1]);
  std::cout << "TorchScript:\n" << scripted.forward({boxes, scores}).toTensor() << "\n";

  torch::inductor::AOTIModelPackageLoader packaged(argv[2]);
  std::cout << "AOTInductor:\n" << packaged.run({boxes, scores})[0] << "\n";
}
