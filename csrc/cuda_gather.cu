// The GPU's side of the gathering: one launch for all scalars of a call, as a rule.
#include "cuda_guard.h"
#include "gather.h"

namespace fasttrain {
namespace {

constexpr int kGatherThreads = 64;

template <class Arguments>
__global__ void __launch_bounds__(kGatherThreads)
    gather_kernel(const __grid_constant__ Arguments arguments) {
    gather_element(arguments, int(blockIdx.x) * kGatherThreads + int(threadIdx.x));
}

} // namespace

void gather_cuda(const std::vector<ScalarSource> &sources, double *row, int device, void *stream) {
    const DeviceGuard guard(device);
    const auto on = static_cast<cudaStream_t>(stream);
    if (is_capturing(on))
        throw std::runtime_error(
            "a scalar of a GPU cannot be recorded while a CUDA graph is captured, since its "
            "replays would not record it again; record the graph's outputs after each replay");
    gather_in_parts(sources, row, [on](const auto &part) {
        const int blocks = (part.count + kGatherThreads - 1) / kGatherThreads;
        gather_kernel<<<blocks, kGatherThreads, 0, on>>>(part);
        check(cudaGetLastError(), "gather_kernel");
    });
}

} // namespace fasttrain
