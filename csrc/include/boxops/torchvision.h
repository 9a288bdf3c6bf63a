// torchvision's operators (torch.ops.torchvision.*) on boxops' kernels. Nothing here happens when libboxops_torch.so is
// loaded: a program asks for it.
#pragma once

#ifndef _WIN32
#define BOXOPS_TORCH_API __attribute__((visibility("default")))
#elif defined(boxops_torch_EXPORTS)  // CMake's, for the library's own sources
#define BOXOPS_TORCH_API __declspec(dllexport)
#else
#define BOXOPS_TORCH_API __declspec(dllimport)
#endif

extern "C" {

// For programs where torchvision's own library is not loaded, such as C++ that runs a TorchScript or an exported
// detector, and where it cannot be, since it was built for another torch: defines the schemas of torchvision's
// operators with kernels for CPU and CUDA, for as long as the process lives. deform_conv2d and the quantised operators
// are defined too, and raise when they are called. Gradients, autocast and fake kernels are registered from Python
// (boxops.provide_torchvision_ops). Call it before anything loads torchvision's own library, which cannot define its
// operators a second time. A second call does nothing.
//
// Returns 0, or 1 where torch refused, as it does (with a line in its log) if the operators are defined already.
BOXOPS_TORCH_API int boxops_provide_torchvision_ops() noexcept;

// For programs where torchvision's own library is loaded: puts boxops' kernels for CPU and CUDA over its kernels of the
// operators that boxops has. Its autograd, autocast, fake and quantised kernels stay. Returns what
// boxops_restore_torchvision_ops takes, once, to give torchvision its kernels back, or null where torch refused.
// Calls may nest and be undone in any order. torch warns, once in a process, that a kernel is overridden.
BOXOPS_TORCH_API void* boxops_override_torchvision_ops() noexcept;
BOXOPS_TORCH_API void boxops_restore_torchvision_ops(void* kernels) noexcept;
}
