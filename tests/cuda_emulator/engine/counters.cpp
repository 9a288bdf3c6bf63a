// Performance counters: what the warps of a launch would ask of a GPU.
//
// The threads of the emulator run apart, so each keeps a trace of the basic blocks that it begins and of its accesses.
// Where the hardware may count on lanes being together (a barrier, a warp intrinsic, the end) the traces of a warp are
// merged: of the entries that its lanes are at, the one that stands first in the code is taken, by all lanes that are
// at it. So lanes that took different ways meet again where the ways do (thread frontiers: Diamos et al., MICRO 2011).
//
// A line of JSON is written for each operation of the stream; counters.py reads it.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/instructions.h"
#include "engine/report.h"
#include "engine/request.h"
#include "engine/watch.h"

namespace cuda_emulator {
namespace {

// Cycles that a warp waits if nothing else hides it. L2, L1 and shared memory are near what microbenchmarks of the H100
// find (arXiv:2402.13499). Barrier, intrinsic and instruction, which is between 1 and the 4 of a full dependency, are
// guesses, with which the sums agree with GPGPU-Sim's (docs/cuda-counters.md). A cluster's barrier is two of a block
// and the way between multiprocessors, which takes 180 there.
constexpr double kFromL2 = 280, kFromL1 = 38, kFromShared = 30, kBarrier = 30, kIntrinsic = 24, kInstruction = 2.5,
                 kClusterBarrier = 2 * kBarrier + 180;

struct Entry {
  uintptr_t address;
  uint32_t caller;  // offset in this module
  uint8_t size;     // 0: a basic block begins
  Kind kind;
  bool shared;
};

// All requests that one access in the code made.
struct Site {
  Kind kind;
  bool shared;
  uint64_t requests, lanes, sectors, ideal, wavefronts, same_address;
};

struct Progress {      // of a warp
  double chain = 0;    // since the last barrier of the block
  double waiting = 0;  // for the loads of the basic block it is in: these go together
};

class Counters final : public Watcher {
 public:
  explicit Counters(const char* file) : file_(fopen(file, "a")) {
    if (file_ != nullptr) return;
    perror(file);
    abort();
  }
  ~Counters() override { fclose(file_); }

  void operations(const char* name, int count) override {
    fprintf(file_, "{\"name\": \"%s\", \"operations\": %d}\n", name, count);
    fflush(file_);
  }

  void begin_launch() override {
    sites_.clear(), read_.clear(), written_.clear();
    const dim3 grid = block->launch.config.gridDim;
    chains_.assign(size_t(grid.x) * grid.y * grid.z, 0);
    most_barriers_ = 0;
    instructions_ = lane_instructions_ = 0;
  }

  void begin_cluster() override {
    for (OfBlock& b : of_block_) b = {};
  }

  void begin_block() override {
    for (auto& trace : traces_) trace.clear();
    for (auto& warp : warps_) warp = {};
  }

  void block_barrier() override {
    merge_all();
    own().chain += kBarrier;
    ++own().barriers;
  }

  void wait_for_cluster() override {
    merge_all();
    ++own().barriers;
  }

  // The slowest block counts. What L1 holds may be old then.
  void cluster_barrier() override {
    double slowest = 0;
    for (const OfBlock& b : of_block_) slowest = std::max(slowest, b.chain);
    for (OfBlock& b : of_block_) b.chain = slowest + kClusterBarrier, b.cached.clear();
  }

  void meeting(const char*, unsigned warp, unsigned lanes) override {
    merge(warp, lanes);
    warps_[warp].chain += kIntrinsic;
    add_instructions(1, lanes);
  }

  void end_block() override {
    merge_all();
    chains_[block->number] = own().chain;
    most_barriers_ = std::max(most_barriers_, own().barriers);
  }

  void basic_block(const void* caller) override {
    traces_[current->number].push_back({0, offset_in_module(caller), 0, {}, false});
  }

  void access(const void* address, size_t size, Kind kind, const void* caller) override {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
    for (size_t done = 0; done < size; done += 16)  // more is several instructions
      traces_[current->number].push_back({begin + done, offset_in_module(caller),
                                          static_cast<uint8_t>(std::min<size_t>(16, size - done)), kind,
                                          is_shared(address)});
  }

  void end_launch() override;

 private:
  void add_instructions(int count, unsigned lanes) {
    instructions_ += count;
    lane_instructions_ += count * __builtin_popcount(lanes);
  }

  void merge(unsigned warp, unsigned lanes);
  void merge_all();
  void count(const Entry& entry, const Request& request, Progress& warp);

  FILE* const file_;
  std::vector<Entry> traces_[1024];  // of each thread of the block
  Progress warps_[32];

  // Of the blocks of the cluster, by rank.
  struct OfBlock {
    std::unordered_set<uintptr_t> cached;  // sectors that it has loaded: they are in L1
    double chain = 0;
    unsigned barriers = 0;
  } of_block_[kMostInCluster];
  OfBlock& own() { return of_block_[block->rank]; }

  // Of the launch.
  std::unordered_map<uint64_t, Site> sites_;
  std::unordered_set<uintptr_t> read_, written_;  // sectors
  std::vector<double> chains_;                    // of each block
  unsigned most_barriers_;
  uint64_t instructions_, lane_instructions_;
};

void Counters::merge(unsigned number, unsigned lanes) {
  Progress& warp = warps_[number];
  const std::vector<Entry>* const traces = traces_ + number * 32;
  size_t at[32] = {};
  const auto members = [](unsigned set, auto f) {
    for (; set != 0; set &= set - 1) f(static_cast<unsigned>(__builtin_ctz(set)));
  };
  unsigned left = 0;
  members(lanes, [&](unsigned l) { left |= unsigned(!traces[l].empty()) << l; });
  while (left != 0) {
    uint32_t first = UINT32_MAX;
    members(left, [&](unsigned l) { first = std::min(first, traces[l][at[l]].caller); });
    Request request = {};
    Entry entry = {};
    members(left, [&](unsigned l) {
      const Entry& e = traces[l][at[l]];
      if (e.caller != first) return;
      entry = e;
      request.address[l] = e.address;
      request.lanes |= 1u << l;
      if (++at[l] == traces[l].size()) left &= ~(1u << l);
    });
    request.size = entry.size;
    if (entry.size == 0) {
      const int instructions = instructions_of_block(entry.caller);
      add_instructions(instructions, request.lanes);
      warp.chain += std::exchange(warp.waiting, 0) + instructions * kInstruction;
    } else {
      count(entry, request, warp);
    }
  }
  warp.chain += std::exchange(warp.waiting, 0);
  members(lanes, [&](unsigned l) { traces_[number * 32 + l].clear(); });
}

// The slowest warp of the interval between two barriers counts.
void Counters::merge_all() {
  double slowest = 0;
  for (unsigned w = 0; w < block->warps.size(); ++w) {
    merge(w, block->warps[w].present);
    slowest = std::max(slowest, std::exchange(warps_[w].chain, 0));
  }
  own().chain += slowest;
}

void Counters::count(const Entry& entry, const Request& request, Progress& warp) {
  Site& site = sites_[uint64_t(entry.caller) << 1 | entry.shared];
  site.kind = entry.kind, site.shared = entry.shared;
  ++site.requests;
  site.lanes += __builtin_popcount(request.lanes);
  if (entry.kind == Kind::kAtomic) site.same_address += request.most_on_one_address();
  if (entry.shared) {
    const int waves = entry.kind == Kind::kAtomic ? request.most_on_one_address() : request.wavefronts();
    site.wavefronts += waves;
    if (entry.kind == Kind::kAtomic) warp.chain += waves * kFromShared;
    if (entry.kind == Kind::kRead) warp.waiting = std::max(warp.waiting, kFromShared);
    return;
  }
  const Distinct sectors = request.pieces(32);
  bool missed = false;
  for (int i = 0; i < sectors.count; ++i) {
    (entry.kind == Kind::kRead ? read_ : written_).insert(sectors.member[i]);
    if (entry.kind == Kind::kRead) missed |= own().cached.insert(sectors.member[i]).second;
  }
  site.sectors += sectors.count, site.ideal += request.ideal_sectors(), site.wavefronts += request.pieces(128).count;
  if (entry.kind == Kind::kRead) warp.waiting = std::max(warp.waiting, missed ? kFromL2 : kFromL1);
}

void Counters::end_launch() {
  const Launch& launch = block->launch;
  const auto number = [](uint64_t n) { return static_cast<unsigned long long>(n); };
  fprintf(file_,
          "{\"kernel\": %u, \"operations\": 1, \"blocks\": %llu, \"threads\": %zu, \"dynamic_shared_bytes\": %zu, "
          "\"barriers\": %u, \"chain\": %.1f, \"instructions\": %llu, \"lane_instructions\": %llu, "
          "\"bytes_read\": %zu, \"bytes_written\": %zu, \"chains\": [",
          offset_in_module(launch.kernel), number(chains_.size()), block->threads.size(),
          launch.config.dynamicSmemBytes, most_barriers_, *std::max_element(chains_.begin(), chains_.end()),
          number(instructions_), number(lane_instructions_), read_.size() * 32, written_.size() * 32);
  const char* separator = "";
  for (const double chain : chains_) fprintf(file_, "%s%.0f", std::exchange(separator, ", "), chain);
  fprintf(file_, "], \"sites\": [");
  separator = "";
  for (const auto& [key, s] : sites_) {
    static const char* const kinds[] = {"load", "store", "atomic"};
    fprintf(file_,
            "%s{\"caller\": %llu, \"kind\": \"%s %s\", \"requests\": %llu, \"lanes\": %llu, \"sectors\": %llu, "
            "\"ideal_sectors\": %llu, \"wavefronts\": %llu, \"same_address\": %llu}",
            std::exchange(separator, ", "), number(key >> 1), s.shared ? "shared" : "global",
            kinds[static_cast<int>(s.kind)], number(s.requests), number(s.lanes), number(s.sectors), number(s.ideal),
            number(s.wavefronts), number(s.same_address));
  }
  fprintf(file_, "]}\n");
  fflush(file_);
}

}  // namespace

Watcher* counters(const char* file) {
  static Counters counters(file);
  return &counters;
}

}  // namespace cuda_emulator
