// The connected components of a graph, by union-find without locks (Jaiganesh and Burtscher 2018).
//
//   parents  | 0 0 1 0 4 4 |     of node i: a node of its component before it; itself: the first
//
// The larger of two roots gets the smaller one as its parent, so that whatever comes first, the root in the end is the
// component's first node.
#pragma once

#include "common/geometry.h"

namespace boxops::cuda {
namespace {

// Whether two boxes have a point in common, and more than their sides.
template <class T>
__device__ bool meet(const Box<T>& a, const Box<T>& b) {
  return (a.x1 < b.x2) & (b.x1 < a.x2) & (a.y1 < b.y2) & (b.y1 < a.y2);
}

struct Components {
  unsigned long long* parents;

  __device__ uint64_t parent(uint64_t i) const { return const_cast<const volatile unsigned long long*>(parents)[i]; }

  __device__ uint64_t root(uint64_t i) const {
    for (uint64_t next; (next = parent(i)) != i;) i = next;
    return i;
  }
  // Returns the root of both. What comes to be the parent of a root is before it, and stays of its component.
  __device__ uint64_t unite(uint64_t a, uint64_t b) const {
    a = root(a), b = root(b);
    while (a != b) {
      const uint64_t first = min_of(a, b), second = max_of(a, b);
      const uint64_t was = atomicCAS(&parents[second], second, first);
      if (was == second) return first;
      a = first, b = root(was);
    }
    return a;
  }
  // The same once nothing is united any more, for the caches to help.
  __device__ uint64_t final_root(uint64_t i) const {
    for (uint64_t next; (next = parents[i]) != i;) i = next;
    return i;
  }
  __device__ uint64_t operator()(int64_t i) const { return final_root(static_cast<uint64_t>(i)); }  // as a key
};

}  // namespace
}  // namespace boxops::cuda
