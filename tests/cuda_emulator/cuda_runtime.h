// Stands in for the CUDA toolkit's header of this name: kernels written for nvcc compile with g++
// and run on the CPU, their threads as fibers (README.md). First on the include path, it wins.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "device/qualifiers.h"
#include "device/vector_types.h"

#include "device/arithmetic.h"
#include "device/atomics.h"
#include "device/block.h"
#include "device/runtime_api.h"
#include "device/warp.h"
