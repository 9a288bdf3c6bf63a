#include "engine/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#ifndef __x86_64__
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_emulator {
namespace {

constexpr size_t kAtOnce = 1024, kMostFibers = 8 * kAtOnce;  // the threads of the largest block and cluster
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStackSize = 256 << 10;
#else
constexpr size_t kStackSize = 64 << 10;
#endif

// Where a stack was left. Switching must be cheap: a kernel of 4000 boxes switches a million times.
#ifdef __x86_64__

using Context = void*;  // the stack pointer; what the ABI preserves across calls lies on the stack

extern "C" void cuda_emulator_switch(Context* from, Context to);
asm(R"(
  .pushsection .text
  .hidden cuda_emulator_switch
  .globl cuda_emulator_switch
  .type cuda_emulator_switch, @function
cuda_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size cuda_emulator_switch, . - cuda_emulator_switch
  .popsection
)");

void switch_context(Context& from, Context& to) { cuda_emulator_switch(&from, to); }

void prepare(Context& context, char* stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + kStackSize);
  *--top = nullptr;  // entry's return address, at which backtraces end
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context = top;
}

#else

using Context = ucontext_t;

void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }

void prepare(Context& context, char* stack, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = kStackSize;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}

#endif

Context scheduler;

// AddressSanitizer wants to know which stack is in use.
#ifdef __SANITIZE_ADDRESS__
const void* scheduler_stack;
size_t scheduler_stack_size;

void announce(void** save, const void* stack, size_t size) { __sanitizer_start_switch_fiber(save, stack, size); }
void arrive_in_scheduler(void* saved) { __sanitizer_finish_switch_fiber(saved, nullptr, nullptr); }
void arrive_in_fiber(void* saved) { __sanitizer_finish_switch_fiber(saved, &scheduler_stack, &scheduler_stack_size); }
void forget(const char* stack) { __asan_unpoison_memory_region(stack, kStackSize); }
#else
const void* const scheduler_stack = nullptr;
const size_t scheduler_stack_size = 0;

void announce(void**, const void*, size_t) {}
void arrive_in_scheduler(void*) {}
void arrive_in_fiber(void*) {}
void forget(const char*) {}
#endif

}  // namespace

struct Fiber {
  char* stack;
  Context context;
  void (*entry)();
};

namespace {
Fiber* starting;

void start() {
  arrive_in_fiber(nullptr);
  starting->entry();
  abort();  // entry must not return
}
}  // namespace

void Fibers::allocate() {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), stride = kStackSize + page;
  if (memory_ == nullptr) {
    memory_size_ = kMostFibers * stride;
    void* memory = mmap(nullptr, memory_size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      perror("CUDA emulator: no memory for stacks");
      abort();
    }
    memory_ = static_cast<char*>(memory);
  }
  for (size_t i = 0; i < kAtOnce; ++i) {
    char* stack = memory_ + all_.size() * stride + page;  // the page below stays closed: an overflow faults
    mprotect(stack, kStackSize, PROT_READ | PROT_WRITE);
    all_.push_back(new Fiber{stack, {}, nullptr});
    free_.insert(free_.begin(), all_.back());
  }
}

Fibers::~Fibers() {
  for (Fiber* fiber : all_) delete fiber;
  if (memory_ != nullptr) munmap(memory_, memory_size_);
}

void Fibers::give_back_all() {
  free_.assign(all_.rbegin(), all_.rend());
  for (Fiber* fiber : all_) forget(fiber->stack);
}

Fiber* Fibers::take(void (*entry)()) {
  if (free_.empty()) allocate();
  Fiber* fiber = free_.back();
  free_.pop_back();
  fiber->entry = entry;
  prepare(fiber->context, fiber->stack, start);
  return fiber;
}

void Fibers::run(Fiber* fiber) {
  running_ = starting = fiber;
  void* saved = nullptr;
  announce(&saved, fiber->stack, kStackSize);
  switch_context(scheduler, fiber->context);
  arrive_in_scheduler(saved);
}

void Fibers::leave() {
  void* saved = nullptr;
  announce(&saved, scheduler_stack, scheduler_stack_size);
  switch_context(running_->context, scheduler);
  arrive_in_fiber(saved);
}

void Fibers::finish() {
  announce(nullptr, scheduler_stack, scheduler_stack_size);
  switch_context(running_->context, scheduler);
  abort();
}

}  // namespace cuda_emulator
