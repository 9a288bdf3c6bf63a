// One block: which thread runs next, and where threads wait for each other.
#include <cstring>

#include "engine/engine.h"
#include "engine/report.h"
#include "engine/watch.h"

namespace cuda_emulator {

thread_local Thread* current = nullptr;
Block* block = nullptr;
Fibers fibers;

namespace {

const char* const kClusterBarrier = "__cluster_barrier_wait";

// "lanes 0x0000000c (thread (2, 0, 0) is one)", for sets that are not empty.
std::string to_text(unsigned warp, unsigned lanes) {
  const unsigned number = warp * 32 + static_cast<unsigned>(__builtin_ctz(lanes));
  if (number >= block->threads.size()) return format("lanes 0x%08x, which the block does not have", lanes);
  return format("lanes 0x%08x (%s is one)", lanes, to_text(block->threads[number]).c_str());
}

// Literals: mostly one address.
bool same(const char* a, const char* b) { return a == b || strcmp(a, b) == 0; }

std::string call(const char* name, unsigned mask, Place place) {
  return format("%s, mask 0x%08x, %s", name, mask, to_text(place).c_str());
}

std::string waiting(const Thread& t) {
  const bool whole_block = strncmp(t.waits_at, "__syncthreads", 13) == 0 || t.waits_at == kClusterBarrier;
  const std::string at =
      whole_block ? format("%s, %s", t.waits_at, to_text(t.place).c_str()) : call(t.waits_at, t.mask, t.place);
  return to_text(t) + " waits (" + at + ")";
}

}  // namespace

Block::Block(Launch& launch, uint32_t rank) : launch(launch), rank(rank) {
  const dim3 size = launch.config.blockDim;
  for (unsigned n = 0; n < size.x * size.y * size.z; ++n) {
    Thread t;
    t.number = n, t.warp = n / 32, t.lane = n % 32;
    t.index = {n % size.x, n / size.x % size.y, n / size.x / size.y};
    threads.push_back(t);
  }
  warps.resize((threads.size() + 31) / 32);
}

void Block::begin(uint32_t of_grid) {
  number = of_grid;
  for (Thread& t : threads) {
    t.waits_at = nullptr, t.left = t.fenced = false;
    t.interval = t.acquired = 0;
  }
  for (size_t w = 0; w < warps.size(); ++w) {
    const size_t lanes = threads.size() - w * 32;
    warps[w].present = lanes >= 32 ? 0xffffffff : (1u << lanes) - 1;
    warps[w].left = warps[w].ready = warps[w].meetings = 0;
    wake(static_cast<unsigned>(w), warps[w].present);
  }
  left_ = cluster_waiting_ = 0;
  barrier_.waiting = 0;
  by_warp_ = launch.random.next() & 1;
}

bool Block::run() {
  while (left_ < threads.size()) {
    Thread* next = pick();
    if (next == nullptr && cluster_waiting_ > 0 && cluster_waiting_ + left_ == threads.size()) return true;
    if (next == nullptr) report(launch, stuck());
    else resume(*next);
    if (!launch.failure.empty()) {
      fibers.give_back_all();
      return false;
    }
  }
  return true;
}

// Half of the blocks switch between all their threads at random; the other half run a random warp as
// far as it gets, so that warps are as far apart as barriers let them.
Thread* Block::pick() {
  if (ready_warps_ == 0) return nullptr;
  if (!by_warp_ || !(ready_warps_ >> last_warp_ & 1)) last_warp_ = launch.random.member(ready_warps_);
  return &threads[last_warp_ * 32 + launch.random.member(warps[last_warp_].ready)];
}

// A thread has a fiber from its first instruction to its last; one that never waits hands its
// fiber, still warm, to the next.
void Block::resume(Thread& thread) {
  if (thread.fiber == nullptr) thread.fiber = fibers.take(thread_main);
  set_thread_index(thread.index);
  current = &thread;
  fibers.run(thread.fiber);
  current = nullptr;
  if (thread.left) {
    fibers.give_back(thread.fiber);
    thread.fiber = nullptr;
  }
}

void Block::thread_main() {
  block->launch.call(block->launch.arguments);
  block->leave(*current);
  fibers.finish();
}

void Block::suspend(Thread& thread, const char* at, unsigned mask, Place place) {
  thread.waits_at = at, thread.mask = mask, thread.place = place;
  Warp& w = warps[thread.warp];
  w.ready &= ~(1u << thread.lane);
  if (w.ready == 0) ready_warps_ &= ~(1u << thread.warp);
}

void Block::wake(unsigned warp, unsigned lanes) {
  warps[warp].ready |= lanes;
  ready_warps_ |= 1u << warp;
}

void Block::yield() { fibers.leave(); }

void Block::leave(Thread& thread) {
  if (barrier_.waiting > 0)
    fail("divergent barrier: " + to_text(thread) + " left the kernel while " + waiting(*barrier_.first));
  Warp& w = warps[thread.warp];
  for (unsigned set = w.meetings; set != 0; set &= set - 1) {
    const Meeting& m = w.meeting[__builtin_ctz(set)];
    if (m.open() && (m.mask >> thread.lane & 1))
      fail("mask names a lane that has left: " + to_text(thread) + " left the kernel while " +
           waiting(threads[thread.warp * 32 + static_cast<unsigned>(__builtin_ctz(m.arrived))]));
  }
  suspend(thread, nullptr, 0, {});
  thread.left = true;
  w.left |= 1u << thread.lane;
  ++left_;
}

int Block::barrier(const char* name, bool predicate, Place place) {
  Thread& me = *current;
  if (left_ > 0) {
    const Thread* gone = threads.data();
    while (!gone->left) ++gone;
    fail(format("divergent barrier: %s came to %s, %s, but %s has left the kernel", to_text(me).c_str(), name,
                to_text(place).c_str(), to_text(*gone).c_str()));
  }
  if (barrier_.waiting == 0) {
    barrier_ = {name, place, 0, 0, &me};
  } else if (!same(barrier_.name, name) || barrier_.place.line != place.line ||
             !same(barrier_.place.file, place.file)) {
    fail(format("divergent barrier: %s came to %s, %s, while %s", to_text(me).c_str(), name, to_text(place).c_str(),
                waiting(*barrier_.first).c_str()));
  }
  barrier_.count += predicate;
  suspend(me, name, 0, place);
  if (++barrier_.waiting == threads.size()) {
    barrier_.waiting = 0;
    barrier_result_ = static_cast<int>(barrier_.count);
    ++barriers;
    if constexpr (kWatched) watcher->block_barrier();
    for (size_t w = 0; w < warps.size(); ++w) wake(static_cast<unsigned>(w), warps[w].present);
  }
  fibers.leave();
  me.waits_at = nullptr;
  return barrier_result_;
}

// Threads of other blocks come there too, so it ends only once no block of the cluster can go on (launch.cpp).
void Block::cluster_barrier(Place place) {
  Thread& me = *current;
  suspend(me, kClusterBarrier, 0, place);
  ++cluster_waiting_;
  fibers.leave();
  me.waits_at = nullptr;
}

void Block::leave_cluster_barrier() {
  for (const Thread& t : threads)
    if (!t.left) wake(t.warp, 1u << t.lane);
  cluster_waiting_ = 0;
}

Lanes Block::meet(const char* name, unsigned mask, uint64_t value, Place place) {
  Thread& me = *current;
  Warp& w = warps[me.warp];
  const unsigned bit = 1u << me.lane;
  if (!(mask & bit)) fail("mask does not name the caller, " + to_text(me) + ": " + call(name, mask, place));
  if (const unsigned gone = mask & (w.left | ~w.present))
    fail("mask names a lane that has left: " + to_text(me.warp, gone) + "; " + to_text(me) + " called " +
         call(name, mask, place));

  unsigned slot = static_cast<unsigned>(__builtin_ctz(~w.meetings));  // 32 lanes never need more than 32
  bool opens = true;
  for (unsigned set = w.meetings; set != 0; set &= set - 1) {
    const unsigned other = static_cast<unsigned>(__builtin_ctz(set));
    const Meeting& m = w.meeting[other];
    if (!m.open() || m.mask != mask) continue;
    if (!same(m.name, name))
      fail("lanes meet at different intrinsics: " + to_text(me) + " called " + call(name, mask, place) + "; " +
           waiting(threads[me.warp * 32 + static_cast<unsigned>(__builtin_ctz(m.arrived))]));
    slot = other;
    opens = false;
  }
  Meeting& m = w.meeting[slot];
  if (opens) {
    m.name = name, m.mask = mask, m.arrived = m.unread = 0;
    w.meetings |= 1u << slot;
  }
  m.arrived |= bit;
  m.lanes.value[me.lane] = value;
  suspend(me, name, mask, place);
  if (m.arrived == mask) {
    m.unread = mask;
    if constexpr (kWatched) watcher->meeting(name, me.warp, mask);
    wake(me.warp, mask);
  }
  fibers.leave();
  me.waits_at = nullptr;
  m.unread &= ~bit;
  if (m.unread == 0) w.meetings &= ~(1u << slot);
  return m.lanes;
}

// Nobody can run. A barrier of the block alone cannot cause that, so some wait for the cluster meanwhile, or some warp
// has a meeting that lacks a lane, and that lane waits elsewhere.
std::string Block::stuck() const {
  if (barrier_.waiting > 0 && cluster_waiting_ > 0) {
    const Thread* other = threads.data();
    while (other->waits_at != kClusterBarrier) ++other;
    return "divergent barrier: " + waiting(*barrier_.first) + ", but " + waiting(*other);
  }
  for (size_t w = 0; w < warps.size(); ++w) {
    for (unsigned set = warps[w].meetings; set != 0; set &= set - 1) {
      const Meeting& m = warps[w].meeting[__builtin_ctz(set)];
      if (!m.open()) continue;
      const Thread& here = threads[w * 32 + static_cast<size_t>(__builtin_ctz(m.arrived))];
      const Thread& missing = threads[w * 32 + static_cast<size_t>(__builtin_ctz(m.mask & ~m.arrived))];
      return "lanes meet at different intrinsics: " + waiting(here) + ", but " + waiting(missing);
    }
  }
  return "no thread can run";
}

// What kernels call.

int block_barrier(const char* name, bool predicate, Place place) { return block->barrier(name, predicate, place); }

Lanes meet(const char* name, unsigned mask, uint64_t value, Place place) {
  return block->meet(name, mask, value, place);
}

void cluster_barrier(Place place) { block->cluster_barrier(place); }

unsigned cluster_blocks() { return block->launch.cluster; }

unsigned cluster_rank() { return block->rank; }

void warp_barrier(unsigned mask, Place place) { block->meet("__syncwarp", mask, 0, place); }

int lane() { return static_cast<int>(current->lane); }

void yield() { block->yield(); }

void fence() {
  if constexpr (kWatched) watcher->fence();
}

// Threads race for atomics, so their order is shuffled there too.
void atomic_access(const void* address, size_t size, const void* caller) {
  if ((block->launch.random.next() & 3) == 0) block->yield();
  if constexpr (kWatched) watcher->access(address, size, Kind::kAtomic, caller);
}

void trap(Place place) { fail(to_text(*current) + " called __trap, " + to_text(place)); }

}  // namespace cuda_emulator
