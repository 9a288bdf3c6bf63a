#include "engine/report.h"

#include <dlfcn.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace cuda_emulator {
namespace {

struct Line {
  std::string function, place;
};

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// What addr2line knows of an address: the innermost inlined function first.
std::vector<Line> look_up(const void* address) {
  Dl_info module;
  std::vector<Line> lines;
  if (dladdr(address, &module) == 0) return lines;
  const size_t offset =
      static_cast<size_t>(static_cast<const char*>(address) - static_cast<const char*>(module.dli_fbase));
  // A sanitizer preloaded into Python must not be preloaded into addr2line too.
  FILE* pipe = popen(format("env -u LD_PRELOAD addr2line -Cfi -e '%s' 0x%zx", module.dli_fname, offset).c_str(), "r");
  if (pipe == nullptr) return lines;
  char function[2048], place[2048];
  while (fgets(function, sizeof(function), pipe) != nullptr && fgets(place, sizeof(place), pipe) != nullptr) {
    function[strcspn(function, "\n")] = 0;
    place[strcspn(place, " \n")] = 0;
    const bool own = strstr(place, "cuda_emulator/device/") != nullptr;  // such as __ldg, inlined
    if (!own) lines.push_back({function, base_name(place)});
  }
  pclose(pipe);
  return lines;
}

std::string kernel_name(const void* kernel) {
  const std::vector<Line> lines = look_up(kernel);
  return lines.empty() ? format("%p", kernel) : lines.back().function;
}

}  // namespace

std::string format(const char* text, ...) {
  va_list arguments, again;
  va_start(arguments, text);
  va_copy(again, arguments);
  std::string result(static_cast<size_t>(vsnprintf(nullptr, 0, text, arguments)), ' ');
  vsnprintf(result.data(), result.size() + 1, text, again);
  va_end(arguments);
  va_end(again);
  return result;
}

std::string to_text(Place place) { return format("%s:%d", base_name(place.file).c_str(), place.line); }

std::string to_text(const Thread& thread) {
  return format("thread (%u, %u, %u)", thread.index.x, thread.index.y, thread.index.z);
}

std::string source_of(const void* address) {
  const std::vector<Line> lines = look_up(static_cast<const char*>(address) - 1);
  if (lines.empty()) return format("%p", address);
  std::string text = lines.front().place;
  if (lines.size() > 1) text += " (inlined at " + lines.back().place + ")";
  return text;
}

void report(Launch& launch, const std::string& what) {
  const dim3 grid = launch.config.gridDim, threads = launch.config.blockDim;
  launch.failure = "CUDA emulator: " + what + "\n  in block " +
                   format("(%u, %u, %u)", blockIdx.x, blockIdx.y, blockIdx.z) + " of " + kernel_name(launch.kernel) +
                   format("\n  grid (%u, %u, %u), block (%u, %u, %u), BOXOPS_EMULATOR_SEED=%llu", grid.x, grid.y,
                          grid.z, threads.x, threads.y, threads.z, static_cast<unsigned long long>(launch.seed));
  fprintf(stderr, "%s\n", launch.failure.c_str());
}

void fail(const std::string& what) {
  report(block->launch, what);
  fibers.finish();
}

}  // namespace cuda_emulator
