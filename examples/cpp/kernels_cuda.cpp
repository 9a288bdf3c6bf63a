// The kernels on device memory: the caller allocates, nothing waits.
#include <boxops/nms.h>
#include <cuda_runtime.h>

#include <cstdio>

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return std::puts("no device"), 0;
  const float corners[] = {0, 0, 10, 10, 0, 0, 10, 5, 20, 20, 30, 30}, scores[] = {0.5f, 0.9f, 0.7f};
  float* device;
  int64_t* keep;  // 3 indices and their number
  cudaMalloc(reinterpret_cast<void**>(&device), sizeof(corners) + sizeof(scores));
  cudaMalloc(reinterpret_cast<void**>(&keep), 4 * sizeof(int64_t));
  cudaMemcpy(device, corners, sizeof(corners), cudaMemcpyHostToDevice);
  cudaMemcpy(device + 12, scores, sizeof(scores), cudaMemcpyHostToDevice);

  const boxops::NmsInput input{
      boxops::Boxes::contiguous(device, 3), boxops::Scalars::contiguous(device + 12, 3), false, {}};
  void* workspace;
  cudaMalloc(&workspace, boxops::cuda::nms_workspace(input, 3));
  const int error = boxops::cuda::nms(input, 0.4, keep, keep + 3, workspace, nullptr);

  int64_t kept[4];
  cudaMemcpy(kept, keep, sizeof(kept), cudaMemcpyDeviceToHost);
  std::printf("error %d, kept %d: %d %d\n", error, int(kept[3]), int(kept[0]), int(kept[1]));
  cudaFree(workspace), cudaFree(keep), cudaFree(device);
}
