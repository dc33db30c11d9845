// The CUDA backend: launchers of the kernels in cuda_kernels.cuh.
//
// A block works on one segment. The norm pass leaves one partial sum per segment; a single block
// adds them in a fixed order, decides, advances the step counts and builds the rules; the update
// pass reads the decision. Every launch is on the caller's stream and nothing is read back, so that
// a step can be captured in a graph. What changes between steps travels as kernel arguments: they
// are copied when a launch is queued, so there is no buffer to guard, and a graph keeps its own.
#include "cuda_step.h"

#include "cuda_guard.h"
#include "cuda_kernels.cuh"

namespace fasttrain {
namespace {

// Segments ordered by rule, so that one launch covers all segments of one.
std::vector<Segment> cut(const std::vector<Slot> &slots, const std::vector<Group> &groups,
                         int (&first)[kNumRules + 1]) {
    std::vector<Segment> segments;
    for (int kind = 0; kind < kNumRules; ++kind) {
        first[kind] = int(segments.size());
        for (size_t index = 0; index < slots.size(); ++index) {
            if (int(groups[size_t(slots[index].group)].kind) != kind)
                continue;
            for (int64_t at = 0; at < slots[index].numel; at += kSegmentElements) {
                const int64_t left = slots[index].numel - at;
                segments.push_back(
                    {int32_t(index), at, left < kSegmentElements ? left : kSegmentElements});
            }
        }
    }
    first[kNumRules] = int(segments.size());
    return segments;
}

// Hands out aligned pieces of a block of memory; with a null base it only counts.
struct Carver {
    char *base;
    size_t used = 0;
    template <class T> T *take(size_t count) {
        T *piece = reinterpret_cast<T *>(base + used);
        used += (count * sizeof(T) + 255) / 256 * 256;
        return piece;
    }
};

DeviceTable carve(Carver &carver, size_t slots, size_t groups, size_t segments) {
    DeviceTable table{};
    table.slots = carver.take<Slot>(slots);
    table.groups = carver.take<Group>(groups);
    table.grads = carver.take<void *>(slots);
    table.segments = carver.take<Segment>(segments);
    table.rules = carver.take<RuleBytes>(slots);
    table.partials = carver.take<double>(segments);
    table.trust = carver.take<TrustSums>(segments);
    table.ratios = carver.take<float>(slots);
    table.first_segments = carver.take<int>(slots);
    table.decision = carver.take<Decision>(1);
    table.num_slots = int(slots);
    table.num_segments = int(segments);
    return table;
}

} // namespace

struct CudaTable::Impl {
    int device = 0;
    int first[kNumRules + 1] = {};
    DeviceTable table{};
    std::vector<void *> grads; // as they are on the device
    std::vector<Group> groups; // likewise
    bool captured = false;     // graphs that may be replayed write these columns too

    static void write(void *to, const void *from, size_t bytes, cudaStream_t stream) {
        static_assert(sizeof(Group) % 4 == 0 && sizeof(void *) % 4 == 0);
        for (size_t at = 0; at < bytes; at += kPayloadBytes) {
            const size_t size = bytes - at < kPayloadBytes ? bytes - at : kPayloadBytes;
            Payload payload;
            memcpy(payload.words, static_cast<const char *>(from) + at, size);
            write_kernel<<<1, kThreads, 0, stream>>>(
                reinterpret_cast<uint32_t *>(static_cast<char *>(to) + at), payload, int(size / 4));
            check(cudaGetLastError(), "write_kernel");
        }
    }

    // Brings gradient addresses and group values to the device where they differ. A graph always
    // takes its own along, since steps outside of it may change what the device has.
    void refresh(const std::vector<Slot> &slots, const std::vector<Group> &wanted, bool capturing,
                 cudaStream_t stream) {
        captured |= capturing;
        bool changed = captured;
        for (size_t i = 0; i < slots.size(); ++i) {
            changed |= grads[i] != slots[i].grad;
            grads[i] = slots[i].grad;
        }
        if (changed)
            write(table.grads, grads.data(), grads.size() * sizeof(void *), stream);
        changed = captured;
        for (size_t i = 0; i < wanted.size(); ++i)
            changed |= memcmp(wanted[i].values, groups[i].values, sizeof(Group::values)) != 0 ||
                       wanted[i].maximize != groups[i].maximize ||
                       wanted[i].lr_at != groups[i].lr_at;
        if (changed) {
            groups = wanted;
            write(table.groups, groups.data(), groups.size() * sizeof(Group), stream);
        }
    }

    void norm(const StepRequest &request, cudaStream_t stream) {
        if (request.norm == NormKind::none || table.num_segments == 0)
            return;
        const auto kernel = request.norm == NormKind::two   ? norm_kernel<NormKind::two>
                            : request.norm == NormKind::inf ? norm_kernel<NormKind::inf>
                                                            : norm_kernel<NormKind::power>;
        kernel<<<table.num_segments, kThreads, 0, stream>>>(table, request.norm_power);
        check(cudaGetLastError(), "norm_kernel");
    }

    void apply(float limit, bool zero, cudaStream_t stream) {
        for (int kind = 0; kind < kNumRules; ++kind) {
            const int count = first[kind + 1] - first[kind];
            if (count == 0)
                continue;
            visit_rule(RuleKind(kind), [&](auto *rule) {
                apply_kernel<std::remove_pointer_t<decltype(rule)>>
                    <<<count, kThreads, 0, stream>>>(table, first[kind], limit, zero);
            });
            check(cudaGetLastError(), "apply_kernel");
        }
        const int lamb = int(RuleKind::lamb), count = first[lamb + 1] - first[lamb];
        if (count == 0)
            return;
        trust_kernel<<<table.num_slots, kThreads, 0, stream>>>(table);
        check(cudaGetLastError(), "trust_kernel");
        finish_lamb_kernel<<<count, kThreads, 0, stream>>>(table, first[lamb]);
        check(cudaGetLastError(), "finish_lamb_kernel");
    }
};

size_t CudaTable::workspace_bytes(const std::vector<Slot> &slots,
                                  const std::vector<Group> &groups) {
    int first[kNumRules + 1];
    Carver carver{nullptr};
    carve(carver, slots.size(), groups.size(), cut(slots, groups, first).size());
    return carver.used;
}

CudaTable::CudaTable(const std::vector<Slot> &slots, const std::vector<Group> &groups, int device,
                     void *workspace, void *stream)
    : impl_(new Impl) {
    const DeviceGuard guard(device);
    const auto on = static_cast<cudaStream_t>(stream);
    impl_->device = device;
    const std::vector<Segment> segments = cut(slots, groups, impl_->first);
    Carver carver{static_cast<char *>(workspace)};
    impl_->table = carve(carver, slots.size(), groups.size(), segments.size());
    impl_->groups = groups;
    for (const Slot &slot : slots)
        impl_->grads.push_back(slot.grad);
    const auto copy = [&](void *to, const auto &from) {
        if (!from.empty())
            check(cudaMemcpyAsync(to, from.data(), from.size() * sizeof(from[0]),
                                  cudaMemcpyHostToDevice, on),
                  "cudaMemcpyAsync");
    };
    copy(impl_->table.slots, slots);
    copy(impl_->table.segments, segments);
    std::vector<int> first_segments(slots.size(), int(segments.size()));
    for (size_t i = segments.size(); i-- > 0;)
        first_segments[size_t(segments[i].slot)] = int(i);
    copy(impl_->table.first_segments, first_segments);
    check(cudaStreamSynchronize(on), "cudaStreamSynchronize"); // the vectors end here
    impl_->write(impl_->table.groups, groups.data(), groups.size() * sizeof(Group), on);
    impl_->write(impl_->table.grads, impl_->grads.data(), slots.size() * sizeof(void *), on);
}

CudaTable::~CudaTable() = default;

bool CudaTable::step(const std::vector<Slot> &slots, const std::vector<Group> &groups,
                     const StepRequest &asked, const DeviceScalars &scalars, void *stream) {
    const DeviceGuard guard(impl_->device);
    const auto on = static_cast<cudaStream_t>(stream);
    const bool capturing = is_capturing(on);
    StepRequest request = asked;
    if (request.norm == NormKind::none && request.check_finite)
        request.norm = NormKind::two; // its sum shows every gradient that is not finite
    impl_->refresh(slots, groups, capturing, on);
    impl_->norm(request, on);
    decide_kernel<<<1, kThreads, 0, on>>>(impl_->table, request, scalars);
    check(cudaGetLastError(), "decide_kernel");
    const float limit = request.clip_value < 0.0 ? INFINITY : float(request.clip_value);
    impl_->apply(limit, request.zero, on);
    return capturing;
}

void CudaTable::read_first(std::vector<Slot> &slots, void *stream) const {
    if (slots.empty())
        return;
    const DeviceGuard guard(impl_->device);
    const auto on = static_cast<cudaStream_t>(stream);
    std::vector<Slot> found(slots.size());
    check(cudaMemcpyAsync(found.data(), impl_->table.slots, found.size() * sizeof(Slot),
                          cudaMemcpyDeviceToHost, on),
          "cudaMemcpyAsync");
    check(cudaStreamSynchronize(on), "cudaStreamSynchronize");
    for (size_t i = 0; i < slots.size(); ++i)
        slots[i].first = found[i].first;
}

const char *cuda_architectures() { return FT_CUDA_ARCHITECTURES; }

std::string cuda_problem() {
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count == 0)
        return "no CUDA device is visible";
    cudaFuncAttributes attributes;
    if (error == cudaSuccess) // fails when no code fits this device or its driver
        error = cudaFuncGetAttributes(&attributes, decide_kernel);
    cudaGetLastError(); // an error that was looked at must not surface in somebody else's call
    return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

} // namespace fasttrain
