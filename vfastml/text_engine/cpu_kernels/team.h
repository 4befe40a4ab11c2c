// The threads that compute a step. They go through the same phases side by side and share out each phase's chunks.
#pragma once
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace vfastml {

/// A caller and its helpers. Chunks are taken one by one, so a thread that the system has put aside holds up no more
/// than the one chunk that it has in hand: a gateway or a client on the same cores costs what it computes, and no more.
/// Waiting is a short spin and then a yield; between steps helpers sleep.
class Team {
 public:
  Team(int num_threads, int max_phases) : phases_(max_phases) {
    try {
      for (int number = 1; number < num_threads; number++) helpers_.emplace_back([this] { serve(); });
    } catch (...) {  // the system gives no more threads
      dismiss();
      throw;
    }
  }

  ~Team() { dismiss(); }

  /// Each thread's place in the phases of one step.
  class Member {
   public:
    /// Runs body(0) ... body(num_chunks - 1), each by one of the threads; returns when all are done.
    template <class Body>
    void phase(int num_chunks, Body&& body) {
      Phase& phase = team_.phases_.at(number_++);
      for (int chunk; (chunk = phase.taken.fetch_add(1, std::memory_order_relaxed)) < num_chunks;) {
        body(chunk);
        phase.done.fetch_add(1, std::memory_order_release);
      }
      Backoff backoff;
      while (phase.done.load(std::memory_order_acquire) != num_chunks) backoff.wait();
    }

    int team_size() const { return team_.size(); }

   private:
    friend class Team;
    explicit Member(Team& team) : team_(team) {}
    Team& team_;
    size_t number_ = 0;
  };

  /// Calls work(member) in every thread that comes in time, this one among them; all of it is done on return.
  void run(const std::function<void(Member&)>& work) {
    wait_until_empty();
    for (Phase& phase : phases_) {
      phase.taken.store(0, std::memory_order_relaxed);
      phase.done.store(0, std::memory_order_relaxed);
    }
    work_ = &work;
    open_.store(true);
    if (!helpers_.empty()) announce();
    Member member(*this);
    work(member);
    open_.store(false);
    wait_until_empty();
  }

  int size() const { return static_cast<int>(helpers_.size()) + 1; }

 private:
  void dismiss() {
    stopping_.store(true);
    announce();
    for (std::thread& helper : helpers_) helper.join();
  }

  struct alignas(64) Phase {
    std::atomic<int> taken{0};
    std::atomic<int> done{0};
  };

  /// Spins for some microseconds, then lets others have the core.
  class Backoff {
   public:
    void wait() {
      if (++turns_ < 500)
        __builtin_ia32_pause();
      else
        sched_yield();
    }

   private:
    int turns_ = 0;
  };

  void serve() {
    int seen = 0;
    while (true) {
      while (epoch_.load() == seen) sleep_while(seen);
      seen = epoch_.load();
      if (stopping_.load()) return;
      inside_.fetch_add(1);
      if (open_.load()) {  // else all was done before this thread woke up
        Member member(*this);
        (*work_)(member);
      }
      inside_.fetch_sub(1);
    }
  }

  /// Waits until no helper looks at the phases.
  void wait_until_empty() {
    Backoff backoff;
    while (inside_.load() != 0) backoff.wait();
  }

  void announce() {
    epoch_.fetch_add(1);
    syscall(SYS_futex, &epoch_, FUTEX_WAKE_PRIVATE, static_cast<int>(helpers_.size()), nullptr, nullptr, 0);
  }

  void sleep_while(int epoch) { syscall(SYS_futex, &epoch_, FUTEX_WAIT_PRIVATE, epoch, nullptr, nullptr, 0); }

  std::vector<Phase> phases_;
  std::vector<std::thread> helpers_;
  const std::function<void(Member&)>* work_ = nullptr;
  alignas(64) std::atomic<int> epoch_{0};
  alignas(64) std::atomic<int> inside_{0};
  std::atomic<bool> open_{false};
  std::atomic<bool> stopping_{false};
};

}  // namespace vfastml
