#include <boxops/registry.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "ops/check.h"

namespace boxops {
namespace {

struct Registry {
  std::vector<std::unique_ptr<const Op>> ops;
  std::vector<const Op*> by_name;
};

Registry& registry() {
  static Registry all;
  return all;
}

}  // namespace

Registered::Registered(Op op) {
  Registry& all = registry();
  all.ops.push_back(std::make_unique<const Op>(std::move(op)));
  const Op* added = all.ops.back().get();
  const auto before = [](const Op* a, const Op* b) { return std::strcmp(a->name, b->name) < 0; };
  all.by_name.insert(std::upper_bound(all.by_name.begin(), all.by_name.end(), added, before), added);
}

const std::vector<const Op*>& all_ops() { return registry().by_name; }

void detail::fail_choice(const Op& op, const Argument& argument, const std::string& got) {
  std::string expected = argument.name + std::string(" to be one of ");
  for (const char* choice : argument.choices)
    expected += (choice == argument.choices[0] ? "'" : ", '") + std::string(choice) + "'";
  fail(op.name, expected, "'" + got + "'");
}

}  // namespace boxops
