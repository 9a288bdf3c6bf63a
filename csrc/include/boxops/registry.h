// Every op with the names and kinds of its arguments: what a binding needs to offer them all without a line for each.
//
// An op registers itself where it is written, by BOXOPS_OP below its definition; kinds come from its C++ signature. A
// binding puts its arguments into Values of these kinds and calls.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <boxops/array.h>
#include <boxops/portability.h>

namespace boxops {

// An argument on its way to an op; nothing for an optional one that is absent, and an enum by its name.
using Value = std::variant<std::monostate, Array, std::vector<Array>, bool, int64_t, double, std::string,
                           std::vector<int64_t>, std::vector<double>>;

// As in Value, and in its order.
enum class Kind : uint8_t { kNone, kArray, kArrays, kBool, kInt, kFloat, kName, kInts, kFloats };

struct Argument {
  const char* name;
  Kind kind;
  bool optional;
  std::vector<const char*> choices;  // of a kName
};

constexpr size_t kMaxArguments = 16, kMaxResults = 4;

// The arguments of one call, in their order. No std::vector: that takes an allocation.
class Arguments {
 public:
  Arguments() = default;
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;
  ~Arguments() {
    for (size_t i = 0; i < count_; ++i) (*this)[i].~Value();
  }
  // Adds make(), where it is made.
  template <class Make>
  Value& add(Make make) {
    Value* added = new (place(count_)) Value(make());
    return ++count_, *added;
  }
  Value& operator[](size_t i) { return *std::launder(reinterpret_cast<Value*>(place(i))); }

 private:
  void* place(size_t i) { return memory_ + i * sizeof(Value); }

  alignas(Value) unsigned char memory_[kMaxArguments * sizeof(Value)];
  size_t count_ = 0;
};

using Results = std::array<Array, kMaxResults>;

struct Op {
  const char* name;
  std::vector<Argument> arguments;
  int results;  // Arrays
  // Takes what it needs out of the arguments, and fills in the results.
  void (*call)(const Op& self, Framework& framework, Arguments& arguments, Results& results);
};

// By rising name. They stay where they are.
BOXOPS_API const std::vector<const Op*>& all_ops();

namespace detail {

[[noreturn]] BOXOPS_API void fail_choice(const Op& op, const Argument& argument, const std::string& got);
[[noreturn]] BOXOPS_API void fail_kind(const Op& op, const Argument& argument, const Value& got);

template <class T>
T&& get(const Op& op, size_t i, Value& value) {
  if (T* held = std::get_if<T>(&value)) return std::move(*held);
  fail_kind(op, op.arguments[i], value);
}

// One parameter of an op: its kind, and how it is taken out of a Value.
template <class T>
struct Parameter {
  static constexpr bool optional = false;
  static constexpr Kind kind = std::is_enum_v<T>                         ? Kind::kName
                               : std::is_same_v<T, Array>                ? Kind::kArray
                               : std::is_same_v<T, std::vector<Array>>   ? Kind::kArrays
                               : std::is_same_v<T, bool>                 ? Kind::kBool
                               : std::is_same_v<T, int64_t>              ? Kind::kInt
                               : std::is_same_v<T, double>               ? Kind::kFloat
                               : std::is_same_v<T, std::vector<int64_t>> ? Kind::kInts
                               : std::is_same_v<T, std::vector<double>>  ? Kind::kFloats
                                                                         : Kind::kNone;
  static_assert(kind != Kind::kNone, "boxops: expected a parameter of a kind that Value has");

  static std::vector<const char*> choices() {
    if constexpr (std::is_enum_v<T>) return {kNames<T>.begin(), kNames<T>.end()};
    else return {};
  }
  static T take(const Op& op, size_t i, Value& value) {
    if constexpr (std::is_enum_v<T>) {
      const std::string& name = get<std::string>(op, i, value);
      for (size_t k = 0; k < kNames<T>.size(); ++k)
        if (name == kNames<T>[k]) return static_cast<T>(k);
      fail_choice(op, op.arguments[i], name);
    } else {
      return get<T>(op, i, value);
    }
  }
};
template <class T>
struct Parameter<std::optional<T>> : Parameter<T> {
  static constexpr bool optional = true;
  static std::optional<T> take(const Op& op, size_t i, Value& value) {
    if (std::holds_alternative<std::monostate>(value)) return std::nullopt;
    return Parameter<T>::take(op, i, value);
  }
};

inline void put(Results& results, Array&& result) { results[0] = std::move(result); }
template <class... A>
void put(Results& results, std::tuple<A...>&& all) {
  size_t i = 0;
  std::apply([&](A&... result) { ((results[i++] = std::move(result)), ...); }, all);
}
template <class R>
constexpr int kResults = 1;
template <class... A>
constexpr int kResults<std::tuple<A...>> = sizeof...(A);

template <auto op>
struct Typed;
template <class R, class... Args, R (*op)(Framework&, Args...)>
struct Typed<op> {
  static_assert(sizeof...(Args) <= kMaxArguments && kResults<R> <= kMaxResults, "boxops: expected fewer arguments");

  static constexpr size_t count = sizeof...(Args);
  static Op described(const char* name, const char* const* names) {
    Op result{name, {}, kResults<R>, &call};
    (result.arguments.push_back(
         {names ? *names++ : "", Parameter<Args>::kind, Parameter<Args>::optional, Parameter<Args>::choices()}),
     ...);
    return result;
  }

 private:
  static void call(const Op& self, Framework& framework, Arguments& arguments, Results& results) {
    call(self, framework, arguments, results, std::index_sequence_for<Args...>());
  }
  template <size_t... i>
  static void call(const Op& self, Framework& framework, Arguments& arguments, Results& results,
                   std::index_sequence<i...>) {
    put(results, op(framework, Parameter<Args>::take(self, i, arguments[i])...));
  }
};

}  // namespace detail

// An op by its function.
template <auto op, size_t n>
Op describe(const char* name, const char* const (&names)[n]) {
  static_assert(n == detail::Typed<op>::count, "boxops: expected a name for each argument of the op");
  return detail::Typed<op>::described(name, names);
}
template <auto op>
Op describe(const char* name) {  // whose errors name no argument
  return detail::Typed<op>::described(name, nullptr);
}

struct BOXOPS_API Registered {
  explicit Registered(Op op);
};

}  // namespace boxops

// BOXOPS_OP(nms, "boxes", "scores", "iou_threshold"): registers a function under its own name.
#define BOXOPS_OP(function, ...) \
  static const ::boxops::Registered registered_##function(::boxops::describe<function>(#function, {__VA_ARGS__}))
