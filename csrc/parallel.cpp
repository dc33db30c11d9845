#include "parallel.h"

#include <thread>
#include <vector>

#include <dlfcn.h>

namespace fasttrain {
namespace {

// The entry point that compilers call for a parallel region; GCC's and LLVM's runtimes have it.
using OpenMpRegion = void (*)(void (*)(void *), void *, unsigned, unsigned);

OpenMpRegion openmp_region() {
    static const auto region = reinterpret_cast<OpenMpRegion>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return region;
}

} // namespace

void run_team(int threads, void (*body)(void *), void *context) {
    if (const OpenMpRegion region = openmp_region()) {
        region(body, context, unsigned(threads), 0);
        return;
    }
    std::vector<std::thread> helpers;
    helpers.reserve(size_t(threads - 1));
    for (int i = 1; i < threads; ++i)
        helpers.emplace_back(body, context);
    body(context);
    for (std::thread &helper : helpers)
        helper.join();
}

const char *team_name() { return openmp_region() ? "openmp" : "threads"; }

} // namespace fasttrain
