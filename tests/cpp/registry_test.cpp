// All ops by their names, as the binding of another framework has them (docs/cpp.md shows the first part), and an op of
// this program among them.
#include <boxops/memory.h>
#include <boxops/registry.h>
#include <boxops/threads.h>

struct Host : boxops::Framework {
  boxops::Array empty(const boxops::Dims& sizes, boxops::DType dtype, boxops::Device device) override {
    return boxops::allocate(sizes, dtype, device);  // or an array of the framework's
  }
  const boxops::Parallel& parallel() override { return boxops::own_threads(); }
  void* stream(boxops::Device) override { return nullptr; }  // CUDA's default stream
};

// value_of(argument) is the binding's part: a Value as argument.kind says; an empty one if it is optional and absent.
template <class ValueOf>
boxops::Results call(const boxops::Op& op, boxops::Framework& framework, ValueOf value_of) {
  boxops::Arguments arguments;
  for (const boxops::Argument& argument : op.arguments) arguments.add([&] { return value_of(argument); });
  boxops::Results results;
  op.call(op, framework, arguments, results);  // fills in the first op.results of them
  return results;
}

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>

#include "ops/check.h"

using namespace boxops;

static int failures = 0;
static void check(const char* what, const std::string& got, const std::string& expected) {
  if (got != expected) ++failures, std::printf("%s: expected %s, got %s\n", what, expected.c_str(), got.c_str());
}

// Without a CUDA kernel.
static Array mirror_boxes(Framework& framework, Array boxes, double width) {
  const Call call("mirror_boxes", framework, boxes.device);
  check_shape(call, "boxes", boxes, {-1, 4}, "[N, 4]");
  Array out = call.empty(boxes.sizes, boxes.dtype);
  call.run([&](const Parallel& parallel) {
    parallel.share(boxes.sizes[0], 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = 4 * begin; i < 4 * end; ++i)
        out.as<float>()[i] = i % 2 ? boxes.as<float>()[i] : static_cast<float>(width) - boxes.as<float>()[i ^ 2];
    });
  });
  return out;
}
BOXOPS_OP(mirror_boxes, "boxes", "width");

// Whose arrays only say that they are on a device.
struct Pretending final : Host {
  Array empty(const Dims& sizes, DType dtype, Device) override { return allocate(sizes, dtype, {}); }
};

using Values = std::map<std::string, Value>;

static const Op& op_of(const char* name) {
  for (const Op* op : all_ops())
    if (std::strcmp(op->name, name) == 0) return *op;
  throw Error(std::string("there is no ") + name);
}
static Results call(const char* name, const Values& values) {
  Pretending framework;
  return call(op_of(name), framework, [&](const Argument& argument) {
    const auto found = values.find(argument.name);
    return found == values.end() ? Value() : found->second;
  });
}
static std::string error_of(const char* name, const Values& values) {
  try {
    call(name, values);
    return "none";
  } catch (const Error& error) {
    return error.what();
  }
}

static std::string signature_of(const Op& op) {
  constexpr const char* kinds[] = {"", "array", "arrays", "bool", "int", "float", "name", "ints", "floats"};
  std::string signature = op.name;
  for (const Argument& argument : op.arguments) {
    signature += std::string(" ") + argument.name + ":" + kinds[static_cast<int>(argument.kind)];
    for (const char* choice : argument.choices) signature += std::string(",") + choice;
    if (argument.optional) signature += "?";
  }
  return signature + " -> " + std::to_string(op.results);
}

template <class T>
std::string words(const Array& array) {
  if (array.data == nullptr) return "none";
  std::string all;
  for (int64_t i = 0; i < array.numel(); ++i) all += (i ? " " : "") + to_string(double(array.as<T>()[i]));
  return all;
}

static Array array_of(float* data, const Dims& sizes) {
  return {data, DType::kFloat32, {}, sizes, compact_strides(sizes), nullptr};
}

int main() {
  const auto& ops = all_ops();
  const auto rising = [](const Op* a, const Op* b) { return std::strcmp(a->name, b->name) >= 0; };
  check("names that do not rise", std::to_string(std::adjacent_find(ops.begin(), ops.end(), rising) - ops.begin()),
        std::to_string(ops.size()));
  check("signature", signature_of(op_of("soft_nms")),
        "soft_nms boxes:array scores:array iou_threshold:float method:name,linear,gaussian sigma:float "
        "score_threshold:float idxs:array? -> 2");
  check("own signature", signature_of(op_of("mirror_boxes")), "mirror_boxes boxes:array width:float -> 1");

  float corners[] = {0, 0, 10, 10, 0, 0, 10, 5, 20, 20, 30, 30}, confidences[] = {0.5f, 1, 0.75f};
  const Array boxes = array_of(corners, {3, 4}), scores = array_of(confidences, {3});
  Values values{{"boxes", boxes}, {"scores", scores},         {"iou_threshold", 0.3}, {"method", std::string("linear")},
                {"sigma", 0.5},   {"score_threshold", 0.001}, {"width", 40.0}};
  const Results found = call("soft_nms", values);
  check("soft_nms", words<int64_t>(found[0]) + ", " + words<float>(found[1]), "1 2 0, 1 0.75 0.25");
  check("a third result", words<float>(found[2]), "none");
  check("mirror_boxes", words<float>(call("mirror_boxes", values)[0]), "30 0 40 10 30 0 40 5 10 20 20 30");

  values["method"] = std::string("cubic");
  check("a wrong name", error_of("soft_nms", values),
        "soft_nms: expected method to be one of 'linear', 'gaussian', got 'cubic'");
  values["method"] = std::string("linear"), values["sigma"] = int64_t(1);
  check("a wrong kind", error_of("soft_nms", values), "soft_nms: expected sigma as a number, got an integer");
  values.erase("sigma");
  check("a missing one", error_of("soft_nms", values), "soft_nms: expected sigma as a number, got nothing");
  values["boxes"] = scores;
  check("a wrong shape", error_of("nms", values), "nms: expected boxes of shape [N, 4], got [3]");
  check("a wrong shape", error_of("mirror_boxes", values), "mirror_boxes: expected boxes of shape [N, 4], got [3]");
  Array elsewhere = boxes;
  elsewhere.device = {DeviceType::kCUDA, 1};
  values["boxes"] = elsewhere;
  check("an op without a kernel", error_of("mirror_boxes", values),
        "mirror_boxes: expected arrays on the CPU (there is no CUDA kernel of this op yet), got cuda:1");

  std::string twice = "none";
  try {
    const Registered again(describe<mirror_boxes>("mirror_boxes", {"boxes", "width"}));
  } catch (const Error& error) {
    twice = error.what();
  }
  check("a name twice", twice, "mirror_boxes: expected a name that no other op has, got it again");

  std::printf(failures ? "%d failures\n" : "ok\n", failures);
  return failures != 0;
}
