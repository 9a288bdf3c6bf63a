// Included before every source of a release wheel (tools/build_wheels): what g++ 11 and later take from newer libraries
// than those of manylinux_2_28, made of what the old ones have. auditwheel tells when something is missing here.
#pragma once

#ifdef __cplusplus
#include <new>

#define BOXOPS_LOCAL __attribute__((weak, visibility("hidden")))

// GLIBC_2.32: shared_ptr counts without atomics if this is set. It never is.
extern "C" BOXOPS_LOCAL char __libc_single_threaded = 0;

// GLIBCXX_3.4.29
namespace std {
BOXOPS_LOCAL void __throw_bad_array_new_length() { throw bad_alloc(); }
}  // namespace std

// CXXABI_1.3.13: exception_ptr's copies are inline since, and call these two. Before, they were the constructor and the destructor.
extern "C" {
void boxops_exception_ptr_copy(void* to, const void* from) noexcept;
void boxops_exception_ptr_destroy(void* self) noexcept;
__asm__(".symver boxops_exception_ptr_copy,_ZNSt15__exception_ptr13exception_ptrC1ERKS0_@CXXABI_1.3.3");
__asm__(".symver boxops_exception_ptr_destroy,_ZNSt15__exception_ptr13exception_ptrD1Ev@CXXABI_1.3.3");
BOXOPS_LOCAL void boxops_addref(void* self) noexcept __asm__("_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv");
BOXOPS_LOCAL void boxops_addref(void* self) noexcept {
  void* copy;  // is never destroyed: its reference is the one to add
  boxops_exception_ptr_copy(&copy, self);
}
BOXOPS_LOCAL void boxops_release(void* self) noexcept __asm__("_ZNSt15__exception_ptr13exception_ptr10_M_releaseEv");
BOXOPS_LOCAL void boxops_release(void* self) noexcept { boxops_exception_ptr_destroy(self); }
}
#endif
