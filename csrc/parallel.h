// Parallel regions in the threads that torch already has.
#pragma once

#include <atomic>
#include <cstdint>

namespace fasttrain {

// Runs `body(worker)` in up to `threads` threads and returns when all are done.
//
// With an OpenMP runtime in the process (torch brings one) its team is used: after a backward pass
// its workers are awake, and no second pool competes with them for the cores. Otherwise threads are
// started for the call.
void run_team(int threads, void (*body)(void *), void *context);

// "openmp" or "threads": what run_team uses.
const char *team_name();

// Calls `task(i)` for every i in [0, count), each once, handed out one after the other.
template <class Task> void parallel_tasks(int64_t count, int threads, Task &&task) {
    if (threads <= 1 || count <= 1) {
        for (int64_t i = 0; i < count; ++i)
            task(i);
        return;
    }
    struct Shared {
        std::atomic<int64_t> next;
        int64_t count;
        Task &task;
    } shared{{0}, count, task};
    run_team(
        int(threads < count ? threads : count),
        [](void *context) {
            Shared &work = *static_cast<Shared *>(context);
            for (int64_t i; (i = work.next.fetch_add(1, std::memory_order_relaxed)) < work.count;)
                work.task(i);
        },
        &shared);
}

} // namespace fasttrain
