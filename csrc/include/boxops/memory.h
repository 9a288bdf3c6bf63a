// Memory for arrays, and the words for when there is none.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include <boxops/array.h>
#include <boxops/portability.h>

namespace boxops {

// What Framework::empty throws where there is no memory for an array.
class BOXOPS_API NoMemory : public std::bad_alloc {
 public:
  NoMemory(const Dims& sizes, DType dtype, Device device);
  const char* what() const noexcept override { return array_.c_str(); }  // "[3, 4] float32 (4.8e-08 GB) on cpu"

 private:
  std::string array_;
};

// "<op>: expected memory for <array>, got none".
struct OutOfMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// For a catch block: throws the exception again, and OutOfMemory where it says that memory ran out. Bindings run every
// op so; the ops themselves where they have another name than their binding.
template <class Name>
[[noreturn]] void rethrow_named(Name&& name) {
  std::string purpose = "to work in";
  try {
    throw;
  } catch (const NoMemory& error) {
    purpose = std::string("for ") + error.what();
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {  // of a std::vector that no memory could hold
  }
  throw OutOfMemory(std::string(name()) + ": expected memory " + purpose + ", got none");
}

// How many bytes an array has. Throws NoMemory where no int64 holds that or, on the CPU, the machine has less: a system
// that grants memory which it does not have would kill the process when the op writes to it.
BOXOPS_API int64_t bytes_of(const Dims& sizes, DType dtype, Device device);

// Asks for large pages, as NumPy does for its arrays: the first touch of a fresh output in pages of
// 4 KB costs several times what filling it does. Only whole large pages of the output are named.
BOXOPS_API void use_large_pages(void* data, int64_t bytes);

// A contiguous array at a multiple of 64 bytes, which frameworks take over without a copy; on CUDA, in the order of the
// stream, which `keeps_stream` keeps. Throws NoMemory.
BOXOPS_API Array allocate(const Dims& sizes, DType dtype, Device device, void* stream = nullptr,
                          std::shared_ptr<void> keeps_stream = nullptr);

}  // namespace boxops
