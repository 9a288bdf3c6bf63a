// What every backend's solver of <boxops/assignment.h> takes the same decisions by.
#pragma once

#include <limits>

#include <boxops/assignment.h>

namespace boxops {

constexpr int kTiedMoves = 16;  // of augmenting row reduction, in a row
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kHuge = 0x1p1000, kScale = 0x1p-64;  // costs beyond are scaled

}  // namespace boxops
