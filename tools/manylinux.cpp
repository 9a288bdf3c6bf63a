// Linked into each library of a release wheel (tools/build_wheels): what g++ 11 and later take from newer libraries than
// those of manylinux_2_28, made of what the old ones have. auditwheel tells when something is missing here.
#include <new>

#define HIDDEN __attribute__((visibility("hidden")))

extern "C" {
// GLIBC_2.32: shared_ptr counts without atomics where this is set. It never is.
HIDDEN char __libc_single_threaded = 0;

// CXXABI_1.3.13: copies of exception_ptr are inline since, and call these two. Before, a constructor and the destructor did.
void copy(void* to, const void* from) noexcept;
void destroy(void* self) noexcept;
__asm__(".symver copy,_ZNSt15__exception_ptr13exception_ptrC1ERKS0_@CXXABI_1.3.3");
__asm__(".symver destroy,_ZNSt15__exception_ptr13exception_ptrD1Ev@CXXABI_1.3.3");

HIDDEN void addref(void* self) noexcept __asm__("_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv");
void addref(void* self) noexcept {
  void* another;  // is never destroyed: its reference is the one to add
  copy(&another, self);
}
HIDDEN void release(void* self) noexcept __asm__("_ZNSt15__exception_ptr13exception_ptr10_M_releaseEv");
void release(void* self) noexcept { destroy(self); }
}

// GLIBCXX_3.4.29
namespace std {
HIDDEN void __throw_bad_array_new_length() { throw bad_alloc(); }
}  // namespace std
