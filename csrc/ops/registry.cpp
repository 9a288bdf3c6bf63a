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
  const auto before = [](const Op* a, const char* name) { return std::strcmp(a->name, name) < 0; };
  const auto place = std::lower_bound(all.by_name.begin(), all.by_name.end(), op.name, before);
  if (place != all.by_name.end() && std::strcmp((*place)->name, op.name) == 0)
    fail(op.name, "a name that no other op has", "it again");
  all.ops.push_back(std::make_unique<const Op>(std::move(op)));
  all.by_name.insert(place, all.ops.back().get());
}

const std::vector<const Op*>& all_ops() { return registry().by_name; }

void detail::fail_choice(const Op& op, const Argument& argument, const std::string& got) {
  std::string expected = argument.name + std::string(" to be one of ");
  for (const char* choice : argument.choices)
    expected += (choice == argument.choices[0] ? "'" : ", '") + std::string(choice) + "'";
  fail(op.name, expected, "'" + got + "'");
}

void detail::fail_kind(const Op& op, const Argument& argument, const Value& got) {
  constexpr const char* kKinds[] = {"nothing",  "an array", "arrays",   "a bool", "an integer",
                                    "a number", "a name",   "integers", "numbers"};
  fail(op.name, argument.name + std::string(" as ") + kKinds[static_cast<size_t>(argument.kind)], kKinds[got.index()]);
}

}  // namespace boxops
