// Race detection.
//
// Two accesses to one byte race when they come from two threads, one of them writes, not both are
// atomic, and nothing orders them: neither a barrier of their block, nor a __syncwarp of both, nor
// an atomic that one thread performs after a fence and another performs later.
//
// A thread's accesses between two such events form an interval. Intervals are numbered as they
// begin, over all launches; a byte's shadow remembers the intervals of its last accesses. So
// "before this launch" and "before this block" are comparisons of two numbers, and shadow memory
// is never cleared. A barrier of the cluster is one number more: of its blocks, intervals before it are over.
#include <algorithm>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "engine/report.h"
#include "engine/watch.h"

namespace cuda_emulator {
namespace {

struct Access {
  uint32_t interval = 0;
  uint32_t caller = 0;  // offset of the return address in this module
};

// Two accesses of one kind stand for all of them (see remember).
struct Pair {
  Access access[2];
};

// The shadow of one byte, or of four that are always accessed together.
struct Cell {
  Access write;
  Pair reads, atomics;
};

constexpr uintptr_t kPageSize = 4096;

struct Page {
  explicit Page(int shift) : shift(shift), cells(kPageSize >> shift) {}
  int shift;  // log2 of the bytes per cell
  std::vector<Cell> cells;
};

struct Interval {
  uint32_t block, barriers, clock, thread;
  uint32_t warp() const { return thread / 32; }
  uint32_t lane() const { return thread % 32; }
};

std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
size_t shadow_bytes = 0;
constexpr size_t kMostShadowBytes = size_t(1) << 30;

struct {
  uintptr_t number = 0;
  Page* page = nullptr;
} recent_pages[1024];

std::vector<Interval> intervals;  // of this launch
uint32_t launch_begin = 1;        // the number of intervals[0]
uint32_t next_interval() { return launch_begin + static_cast<uint32_t>(intervals.size()); }

// Of the blocks of the cluster, by rank.
struct OfBlock {
  uint32_t begin = 1;  // the number of its first interval
  // Vector clocks within a warp: seen[w][i][j] is the latest clock of lane j that lane i knows of by
  // __syncwarp; seen[w][i][i] is its own.
  uint32_t seen[32][32][32] = {};
  // Intervals of others that the whole block may rely on: what its threads had acquired at the last barrier.
  uint32_t acquired = 0;
} of_block[kMostInCluster];
OfBlock& own() { return of_block[block->rank]; }

// Of the cluster: intervals of its blocks before this one are over; what all may rely on by what one has acquired.
uint32_t cluster_met = 0, cluster_acquired = 0;

// By address: the interval before which everything was published by threads that performed an
// atomic there after a fence. Publishing counts for all threads at once, which can hide a race
// behind another thread's fence, but never invents one.
std::unordered_map<uintptr_t, uint32_t> published;

Page& page_of(uintptr_t address) {
  const uintptr_t number = address / kPageSize;
  auto& recent = recent_pages[number % std::size(recent_pages)];
  if (recent.page != nullptr && recent.number == number) return *recent.page;
  auto& page = pages[number];
  if (page == nullptr) {
    page = std::make_unique<Page>(2);
    shadow_bytes += page->cells.size() * sizeof(Cell);
  }
  recent = {number, page.get()};
  return *page;
}

void split_to_bytes(Page& page) {
  Page bytes(0);
  for (size_t i = 0; i < bytes.cells.size(); ++i) bytes.cells[i] = page.cells[i >> page.shift];
  shadow_bytes += (bytes.cells.size() - page.cells.size()) * sizeof(Cell);
  page = std::move(bytes);
}

uint32_t interval_of(Thread& t) {
  if (t.interval == 0) {
    t.interval = next_interval();
    intervals.push_back({block->number, block->barriers, own().seen[t.warp][t.lane][t.lane], t.number});
  }
  return t.interval;
}

const Interval& details(const Access& a) { return intervals[a.interval - launch_begin]; }

// Whether nothing orders `a`, an access of this launch, before what `t` does now.
bool unordered(const Access& a, const Thread& t) {
  if (a.interval < std::max(t.acquired, own().acquired)) return false;
  const Interval& i = details(a);
  if (a.interval < cluster_met && i.block / block->launch.cluster == block->number / block->launch.cluster)
    return false;
  if (i.block != block->number) return true;
  if (i.thread == t.number || i.barriers < block->barriers) return false;
  return i.warp() != t.warp || i.clock > own().seen[t.warp][t.lane][i.lane()];
}

bool same_warp(const Access& a, const Access& b) {
  const Interval &i = details(a), &j = details(b);
  return i.block == j.block && i.warp() == j.warp();
}

// An access that comes before `now` need not be kept: what is unordered with it is unordered with
// `now` too. Of three that nothing orders, two in different warps are kept, if there are: whoever
// comes next is not in both. If all are lanes of one warp, the oldest goes.
void remember(Pair& pair, const Access& now, uint32_t oldest) {
  Access &a = pair.access[0], &b = pair.access[1];
  const auto gone = [&](const Access& x) { return x.interval < oldest || !unordered(x, *current); };
  if (gone(a)) {
    a = now;
  } else if (gone(b)) {
    b = now;
  } else if (!same_warp(a, now)) {
    b = now;
  } else {
    if (same_warp(a, b)) b = a;
    a = now;
  }
}

const char* verb(Kind kind) {
  return kind == Kind::kRead ? "reads" : kind == Kind::kWrite ? "writes" : "atomically changes";
}

std::string place_of(uint32_t caller) { return source_of(__ehdr_start + caller); }

[[noreturn]] void report_race(const void* address, const Access& before, Kind before_kind, const Access& now,
                              Kind kind) {
  const Interval& other = details(before);
  const dim3 grid = gridDim, size = blockDim;
  std::string where = "of the same block";
  if (other.block != block->number)
    where = format("of block (%u, %u, %u)", other.block % grid.x, other.block / grid.x % grid.y,
                   other.block / grid.x / grid.y);
  fail(format("race on %s memory at %p:\n  thread (%u, %u, %u) %s %s it, %s\n  %s %s it, %s",
              is_shared(address) ? "shared" : "global", address, other.thread % size.x, other.thread / size.x % size.y,
              other.thread / size.x / size.y, where.c_str(), verb(before_kind), place_of(before.caller).c_str(),
              to_text(*current).c_str(), verb(kind), place_of(now.caller).c_str()));
}

void access_cell(Cell& cell, const void* address, Kind kind, const Access& now, uint32_t oldest) {
  Thread& me = *current;
  const auto check = [&](const Access& before, Kind before_kind) {
    if (before.interval >= oldest && before.interval != now.interval && unordered(before, me))
      report_race(address, before, before_kind, now, kind);
  };
  check(cell.write, Kind::kWrite);
  if (kind != Kind::kAtomic)
    for (const Access& a : cell.atomics.access) check(a, Kind::kAtomic);
  if (kind != Kind::kRead)
    for (const Access& a : cell.reads.access) check(a, Kind::kRead);

  if (kind == Kind::kWrite) {
    // All earlier accesses come before this write, and so before whatever this write comes before.
    cell.write = now;
    cell.reads = cell.atomics = {};
  } else {
    remember(kind == Kind::kRead ? cell.reads : cell.atomics, now, oldest);
  }
}

bool written(const Cell& cell) {
  return cell.write.interval >= own().begin || cell.atomics.access[0].interval >= own().begin;
}

// An atomic after a fence publishes; every atomic acquires what was published there.
void order_by_atomic(Thread& me, const void* address) {
  uint32_t& until = published[reinterpret_cast<uintptr_t>(address)];
  me.acquired = std::max(me.acquired, until);
  if (!me.fenced) return;
  until = next_interval();
  me.interval = 0;
}

struct Races final : Watcher {
  void begin_launch() override;
  void begin_cluster() override { cluster_met = cluster_acquired = 0; }
  void begin_block() override;
  void block_barrier() override;
  void wait_for_cluster() override;
  void cluster_barrier() override;
  void meeting(const char* name, unsigned warp, unsigned lanes) override;
  void fence() override { current->fenced = true; }
  void access(const void* address, size_t size, Kind kind, const void* caller) override;
} races;

void Races::begin_launch() {
  launch_begin = next_interval();
  intervals.clear();
  published.clear();
  if (shadow_bytes > kMostShadowBytes) {
    pages.clear();
    for (auto& recent : recent_pages) recent = {};
    shadow_bytes = 0;
  }
}

void Races::begin_block() {
  own().begin = next_interval();
  own().acquired = 0;
  // New clocks, so that nobody seems to know of this block's accesses already.
  for (size_t w = 0; w < block->warps.size(); ++w)
    for (int i = 0; i < 32; ++i) ++own().seen[w][i][i];
}

void Races::block_barrier() {
  for (Thread& t : block->threads) {
    own().acquired = std::max(own().acquired, t.acquired);
    t.interval = 0;
  }
}

void Races::wait_for_cluster() {
  block_barrier();
  cluster_acquired = std::max(cluster_acquired, own().acquired);
}

void Races::cluster_barrier() {
  cluster_met = next_interval();
  for (OfBlock& b : of_block) b.acquired = cluster_acquired;
}

void Races::meeting(const char* name, unsigned warp, unsigned lanes) {
  if (strcmp(name, "__syncwarp") != 0) return;  // of the warp intrinsics only this one orders memory
  auto& clocks = own().seen[warp];
  uint32_t joined[32] = {}, acquired = 0;
  const auto for_each_lane = [&](auto f) {
    for (unsigned set = lanes; set != 0; set &= set - 1) f(static_cast<unsigned>(__builtin_ctz(set)));
  };
  for_each_lane([&](unsigned i) {
    for (int j = 0; j < 32; ++j) joined[j] = std::max(joined[j], clocks[i][j]);
    acquired = std::max(acquired, block->threads[warp * 32 + i].acquired);
  });
  for_each_lane([&](unsigned i) {
    std::copy(joined, joined + 32, clocks[i]);
    ++clocks[i][i];
    Thread& t = block->threads[warp * 32 + i];
    t.interval = 0;
    t.acquired = acquired;
  });
}

void Races::access(const void* address, size_t size, Kind kind, const void* caller) {
  Thread& me = *current;
  const bool shared = is_shared(address);
  const uint32_t oldest = shared ? own().begin : launch_begin;
  const uintptr_t apart = shared ? uintptr_t(block->rank) << 56 : 0;  // blocks have one address for memory of their own
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address), end = begin + size;
  const Access now = {interval_of(me), offset_in_module(caller)};
  for (uintptr_t at = begin; at < end;) {
    Page& page = page_of(at + apart);
    if (page.shift != 0 && ((begin | end) & 3) != 0) split_to_bytes(page);
    const uintptr_t page_end = std::min(end, (at / kPageSize + 1) * kPageSize);
    for (; at < page_end; at += uintptr_t(1) << page.shift) {
      Cell& cell = page.cells[at % kPageSize >> page.shift];
      const void* here = reinterpret_cast<const void*>(at);
      if (shared && kind != Kind::kWrite && !written(cell))
        fail(format("uninitialised shared memory: %s %s %p, which no thread of the block has written, %s",
                    to_text(me).c_str(), verb(kind), here, source_of(caller).c_str()));
      access_cell(cell, here, kind, now, oldest);
    }
  }
  if (kind == Kind::kAtomic) order_by_atomic(me, address);
  if (kind == Kind::kWrite && !shared) me.fenced = false;
}

}  // namespace

Watcher* race_detection() { return &races; }

}  // namespace cuda_emulator
