// Stacks that take turns on one thread of the operating system.
#pragma once

#include <cstddef>
#include <vector>

namespace cuda_emulator {

struct Fiber;

class Fibers {
 public:
  ~Fibers();
  // A fiber that will run entry(); entry must end with finish().
  Fiber* take(void (*entry)());
  void give_back(Fiber* fiber) { free_.push_back(fiber); }
  void give_back_all();

  // From the scheduler: runs the fiber until it leaves or finishes.
  void run(Fiber* fiber);
  // From a fiber: back to the scheduler, until run again; or for good, which AddressSanitizer is not told, as its
  // answer to that is a system call.
  void leave();
  void finish();

  // Whether the address lies on one of the stacks.
  bool own(const void* address) const {
    return static_cast<size_t>(static_cast<const char*>(address) - memory_) < memory_size_;
  }

 private:
  void allocate();

  char* memory_ = nullptr;
  size_t memory_size_ = 0;
  std::vector<Fiber*> all_, free_;
  Fiber* running_ = nullptr;
};

}  // namespace cuda_emulator
