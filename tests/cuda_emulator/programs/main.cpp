// programs NAME [SEED [COUNT]]: runs a program under COUNT seeds from SEED on, printing one result a line.
#include <chrono>
#include <cstring>
#include <string>

#include "programs/program.h"

int main(int argc, char** argv) {
  const int seed = argc > 2 ? atoi(argv[2]) : 1, count = argc > 3 ? atoi(argv[3]) : 1;
  for (const Program* p = Program::first(); p != nullptr; p = p->next) {
    if (argc < 2) {
      puts(p->name);
    } else if (strcmp(p->name, argv[1]) == 0) {
      for (int s = seed; s < seed + count; ++s) {
        setenv("BOXOPS_EMULATOR_SEED", std::to_string(s).c_str(), 1);
        const auto begin = std::chrono::steady_clock::now();
        printf("%.17g\n", p->run());
        fprintf(stderr, "%s: %.3f s\n", p->name,
                std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
      }
      return 0;
    }
  }
  return argc < 2 ? 0 : 2;
}
