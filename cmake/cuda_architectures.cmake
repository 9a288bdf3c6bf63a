# Sets CMAKE_CUDA_ARCHITECTURES from BOXOPS_CUDA_ARCHS, and where that is empty from the visible GPUs; without any, to all.
execute_process(COMMAND ${BOXOPS_NVCC} --list-gpu-arch OUTPUT_VARIABLE known)
string(REGEX MATCHALL "[0-9]+" known "${known}")
list(JOIN known "|" known)

string(REPLACE "," ";" CMAKE_CUDA_ARCHITECTURES "${BOXOPS_CUDA_ARCHS}")
if(BOXOPS_CUDA_ARCHS MATCHES "^(native)?$")
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader OUTPUT_VARIABLE gpus ERROR_QUIET)
  string(REGEX MATCHALL "[0-9]+\\.[0-9]" CMAKE_CUDA_ARCHITECTURES "${gpus}")
  list(TRANSFORM CMAKE_CUDA_ARCHITECTURES REPLACE "\\." "")
  list(REMOVE_DUPLICATES CMAKE_CUDA_ARCHITECTURES)
  list(FILTER CMAKE_CUDA_ARCHITECTURES INCLUDE REGEX "^(${known})$")
endif()
if(BOXOPS_CUDA_ARCHS STREQUAL "all" OR NOT CMAKE_CUDA_ARCHITECTURES)
  # A GPU runs the code of its major version: 80's serves 86 to 89 too. From 90's PTX, drivers compile for what came later.
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 90 100-real 120-real)
  list(FILTER CMAKE_CUDA_ARCHITECTURES INCLUDE REGEX "^(${known})(-real)?$")
endif()
