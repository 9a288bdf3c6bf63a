// How many instructions each basic block of this module has, by the return address of its call of
// __sanitizer_cov_trace_pc: as objdump shows them, without the calls of the hooks.
#include "engine/instructions.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <unordered_map>

#include "engine/report.h"
#include "engine/watch.h"

namespace cuda_emulator {
namespace {

std::unordered_map<uint32_t, int> count() {
  std::unordered_map<uint32_t, int> instructions;
  Dl_info module;
  if (dladdr(__ehdr_start, &module) == 0) return instructions;
  FILE* pipe = popen(format("objdump -d --no-show-raw-insn '%s'", module.dli_fname).c_str(), "r");
  if (pipe == nullptr) return instructions;
  char line[4096];
  int* block = nullptr;
  bool begins = false;
  while (fgets(line, sizeof(line), pipe) != nullptr) {
    unsigned long address;
    if (line[0] != ' ' || sscanf(line, "%lx", &address) != 1) {  // "<function>:"
      block = nullptr;
      continue;
    }
    if (begins) block = &instructions[static_cast<uint32_t>(address)];
    begins = strstr(line, "<__sanitizer_cov_trace_pc") != nullptr;
    if (begins || block == nullptr) continue;
    const bool hook = strstr(line, "<__tsan_") != nullptr;
    *block += hook ? -1 : 1;  // with the instruction that sets its argument
  }
  pclose(pipe);
  return instructions;
}

}  // namespace

int instructions_of_block(uint32_t offset) {
  static const std::unordered_map<uint32_t, int> counts = count();
  const auto found = counts.find(offset);
  return found == counts.end() ? 1 : std::max(1, found->second);
}

}  // namespace cuda_emulator
