// The CUDA backend: per-element math from rules.h, kernels, launchers, in that order.
//
// A block works on one segment. The norm pass leaves one partial sum per segment; a single block
// adds them in a fixed order, decides, advances the step counts and builds the rules; the update
// pass reads the decision. Every launch is on the caller's stream and nothing is read back, so that
// a step can be captured in a graph.
#include "cuda_step.h"

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <cuda_runtime.h>

namespace fasttrain {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 4; // elements per thread and turn: 16 bytes of float32
constexpr int64_t kSegmentElements = 16384;
constexpr int kStagingBuffers = 4; // steps that the host may be ahead

void check(cudaError_t error, const char *what) {
    if (error != cudaSuccess)
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// What the decision leaves for the update pass.
struct Decision {
    float factor;
    int skip;
};

// The table's arrays in device memory.
struct DeviceTable {
    Slot *slots;
    Group *groups;
    void **grads;
    Segment *segments;
    RuleBytes *rules;
    double *partials;
    TrustSums *trust;
    float *ratios;
    int *first_segments; // of each slot
    Decision *decision;
    int num_slots;
    int num_segments;
};

// ---------------------------------------------------------------------------- device math

__device__ float load_one(const void *base, Dtype type, int64_t at) {
    if (type == Dtype::float32)
        return static_cast<const float *>(base)[at];
    const uint16_t half = static_cast<const uint16_t *>(base)[at];
    return type == Dtype::bfloat16 ? bf16_to_float(half) : fp16_to_float(half);
}

__device__ uint16_t narrow(float value, Dtype type) {
    return type == Dtype::bfloat16 ? float_to_bf16(value) : float_to_fp16(value);
}

__device__ void store_one(void *base, Dtype type, int64_t at, float value) {
    if (type == Dtype::float32)
        static_cast<float *>(base)[at] = value;
    else
        static_cast<uint16_t *>(base)[at] = narrow(value, type);
}

__device__ bool is_aligned(const void *base, int64_t bytes) {
    return (reinterpret_cast<uintptr_t>(base) & uintptr_t(bytes - 1)) == 0;
}

// Four elements from `at` on; one wide access where count and alignment allow it.
__device__ void load(const void *base, Dtype type, int64_t at, int count, float (&out)[kVector]) {
    if (count == kVector && is_aligned(base, kVector * size_of(type))) {
        if (type == Dtype::float32) {
            const float4 v =
                *reinterpret_cast<const float4 *>(static_cast<const float *>(base) + at);
            out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
        } else {
            const uint2 v =
                *reinterpret_cast<const uint2 *>(static_cast<const uint16_t *>(base) + at);
            const uint16_t halves[kVector] = {uint16_t(v.x), uint16_t(v.x >> 16), uint16_t(v.y),
                                              uint16_t(v.y >> 16)};
#pragma unroll
            for (int i = 0; i < kVector; ++i)
                out[i] =
                    type == Dtype::bfloat16 ? bf16_to_float(halves[i]) : fp16_to_float(halves[i]);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i)
        out[i] = i < count ? load_one(base, type, at + i) : 0.0f;
}

__device__ void store_halves(uint16_t *base, int64_t at, int count,
                             const uint16_t (&halves)[kVector]) {
    if (count == kVector && is_aligned(base, kVector * 2)) {
        *reinterpret_cast<uint2 *>(base + at) =
            make_uint2(uint32_t(halves[0]) | uint32_t(halves[1]) << 16,
                       uint32_t(halves[2]) | uint32_t(halves[3]) << 16);
        return;
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i)
        if (i < count)
            base[at + i] = halves[i];
}

__device__ void store(void *base, Dtype type, int64_t at, int count,
                      const float (&values)[kVector]) {
    if (type == Dtype::float32) {
        if (count == kVector && is_aligned(base, kVector * 4)) {
            *reinterpret_cast<float4 *>(static_cast<float *>(base) + at) =
                make_float4(values[0], values[1], values[2], values[3]);
            return;
        }
#pragma unroll
        for (int i = 0; i < kVector; ++i)
            if (i < count)
                store_one(base, type, at + i, values[i]);
        return;
    }
    uint16_t halves[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i)
        halves[i] = narrow(values[i], type);
    store_halves(static_cast<uint16_t *>(base), at, count, halves);
}

__device__ void load_param(const Slot &slot, int64_t at, int count, float (&out)[kVector]) {
    if (slot.master_kind == Master::full) {
        load(slot.master, Dtype::float32, at, count, out);
    } else if (slot.master_kind == Master::none) {
        load(slot.param, slot.param_type, at, count, out);
    } else {
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
            if (i >= count)
                break;
            const uint32_t high = static_cast<const uint16_t *>(slot.param)[at + i];
            const int16_t rest = static_cast<const int16_t *>(slot.master)[at + i];
            out[i] = float_of((high << 16) + uint32_t(int32_t(rest)));
        }
    }
}

__device__ void store_param(const Slot &slot, int64_t at, int count,
                            const float (&values)[kVector]) {
    if (slot.master_kind == Master::full)
        store(slot.master, Dtype::float32, at, count, values);
    if (slot.master_kind != Master::split16) {
        store(slot.param, slot.param_type, at, count, values);
        return;
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
        if (i >= count)
            break;
        const uint32_t bits = bits_of(values[i]);
        const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
        const uint32_t upper = finite ? (bits + 0x8000u) >> 16 : float_to_bf16(values[i]);
        static_cast<uint16_t *>(slot.param)[at + i] = uint16_t(upper);
        static_cast<int16_t *>(slot.master)[at + i] =
            finite ? int16_t(bits - (upper << 16)) : int16_t(0);
    }
}

__device__ void store_state(const Slot &slot, int k, uint32_t seed, int64_t at, int count,
                            const float (&values)[kVector]) {
    if (!slot.stochastic || slot.state_type != Dtype::bfloat16) {
        store(slot.states[k], slot.state_type, at, count, values);
        return;
    }
    uint16_t halves[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i)
        halves[i] = float_to_bf16_stochastic(
            values[i], random_bits(seed + uint32_t(k) * 0x632be5abu, uint32_t(at + i)));
    store_halves(static_cast<uint16_t *>(slot.states[k]), at, count, halves);
}

__device__ double combine(NormKind kind, double left, double right) {
    if (kind != NormKind::inf)
        return left + right;
    return right > left || right != right ? right : left;
}

// The block's result in every thread; a tree in shared memory, the same order every time.
__device__ double reduce_block(NormKind kind, double value) {
    __shared__ double shared[kThreads];
    __syncthreads();
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            shared[threadIdx.x] = combine(kind, shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    return shared[0];
}

// ---------------------------------------------------------------------------- kernels

__global__ void __launch_bounds__(kThreads)
    norm_kernel(DeviceTable table, NormKind kind, double power) {
    const Segment segment = table.segments[blockIdx.x];
    const Slot &slot = table.slots[segment.slot];
    const void *grad = table.grads[segment.slot];
    double sum = 0.0;
    if (grad) {
        const int64_t end = segment.begin + segment.count;
        for (int64_t at = segment.begin + int64_t(threadIdx.x) * kVector; at < end;
             at += int64_t(kThreads) * kVector) {
            float g[kVector];
            load(grad, slot.grad_type, at, end - at < kVector ? int(end - at) : kVector, g);
#pragma unroll
            for (int i = 0; i < kVector; ++i) { // absent elements are zero
                const double value = g[i];
                sum = combine(kind, sum,
                              kind == NormKind::two   ? value * value
                              : kind == NormKind::inf ? fabs(value)
                                                      : pow(fabs(value), power));
            }
        }
    }
    sum = reduce_block(kind, sum);
    if (threadIdx.x == 0)
        table.partials[blockIdx.x] = sum;
}

// One block: adds the partial sums, decides, and prepares the rules of the update pass.
__global__ void __launch_bounds__(kThreads)
    decide_kernel(DeviceTable table, StepRequest request, DeviceScalars scalars) {
    double reduced = 0.0;
    if (request.norm != NormKind::none) {
        for (int i = int(threadIdx.x); i < table.num_segments; i += kThreads)
            reduced = combine(request.norm, reduced, table.partials[i]);
        reduced = reduce_block(request.norm, reduced);
    }
    const double unscale = request.unscale / (scalars.scale ? double(*scalars.scale) : 1.0);
    const double root = request.norm == NormKind::two     ? sqrt(reduced)
                        : request.norm == NormKind::power ? pow(reduced, 1.0 / request.norm_power)
                                                          : reduced;
    const double norm = root * fabs(unscale);
    double coefficient = 1.0;
    if (request.max_norm >= 0.0) {
        coefficient = request.max_norm / (norm + 1e-6);
        coefficient = coefficient > 1.0 ? 1.0 : coefficient; // a NaN stays
    }
    const bool found = scalars.found_inf && *scalars.found_inf != 0.0f;
    const bool skip = found || (request.check_finite && !isfinite(reduced));
    if (threadIdx.x == 0) {
        table.decision->factor = float(unscale * coefficient);
        table.decision->skip = skip;
        if (scalars.norm_out)
            *scalars.norm_out = float(norm);
        if (scalars.found_out)
            *scalars.found_out = skip ? 1.0f : 0.0f;
    }
    if (skip)
        return;
    for (int index = int(threadIdx.x); index < table.num_slots; index += kThreads) {
        if (!table.grads[index])
            continue;
        Slot &slot = table.slots[index];
        const Group &group = table.groups[slot.group];
        const double step = slot.step ? double(*slot.step += 1.0f) : 0.0;
        const bool first = slot.first;
        visit_rule(group.kind, [&](auto *rule) {
            store_rule(table.rules[index], rule->make(group.values, step, first));
        });
        slot.first = false;
        slot.step_seed = random_bits(slot.seed, uint32_t(int64_t(step)));
    }
}

__device__ void zero_segment(void *grad, Dtype type, const Segment &segment) {
    const int64_t end = segment.begin + segment.count;
    const float zeros[kVector] = {};
    for (int64_t at = segment.begin + int64_t(threadIdx.x) * kVector; at < end;
         at += int64_t(kThreads) * kVector)
        store(grad, type, at, end - at < kVector ? int(end - at) : kVector, zeros);
}

// The update of all segments from `first_segment` on, which are of one rule.
template <class Rule>
__global__ void __launch_bounds__(kThreads)
    apply_kernel(DeviceTable table, int first_segment, float limit, bool zero) {
    const int index = first_segment + int(blockIdx.x);
    const Segment segment = table.segments[index];
    void *grad = table.grads[segment.slot];
    if (!grad)
        return;
    const Slot slot = table.slots[segment.slot];
    const Decision decision = *table.decision;
    if (decision.skip) {
        if (zero)
            zero_segment(grad, slot.grad_type, segment);
        return;
    }
    Rule rule;
    memcpy(&rule, &table.rules[segment.slot], sizeof(Rule));
    const float factor = table.groups[slot.group].maximize ? -decision.factor : decision.factor;
    const float zeros[kVector] = {};
    double params = 0.0, updates = 0.0;
    const int64_t end = segment.begin + segment.count;
    for (int64_t at = segment.begin + int64_t(threadIdx.x) * kVector; at < end;
         at += int64_t(kThreads) * kVector) {
        const int count = end - at < kVector ? int(end - at) : kVector;
        float p[kVector] = {}, g[kVector], s[3][kVector] = {};
        load_param(slot, at, count, p);
        load(grad, slot.grad_type, at, count, g);
#pragma unroll
        for (int k = 0; k < Rule::kStates; ++k)
            load(slot.states[k], slot.state_type, at, count, s[k]);
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
            float value = g[i] * factor;
            value = value > limit ? limit : (value < -limit ? -limit : value);
            rule(p[i], value, s[0][i], s[1][i], s[2][i]);
            if constexpr (std::is_same_v<Rule, Lamb>) {
                if (i < count) {
                    const double update = rule.update(p[i], s[0][i], s[1][i]);
                    params += double(p[i]) * double(p[i]);
                    updates += update * update;
                }
            }
        }
        if constexpr (!std::is_same_v<Rule, Lamb>)
            store_param(slot, at, count, p);
#pragma unroll
        for (int k = 0; k < Rule::kStates; ++k)
            store_state(slot, k, slot.step_seed, at, count, s[k]);
        if (zero)
            store(grad, slot.grad_type, at, count, zeros);
    }
    if constexpr (std::is_same_v<Rule, Lamb>) {
        params = reduce_block(NormKind::two, params);
        updates = reduce_block(NormKind::two, updates);
        if (threadIdx.x == 0)
            table.trust[index] = {params, updates};
    }
}

// One thread per slot: LAMB's trust ratio from the sums of the slot's segments.
__global__ void trust_kernel(DeviceTable table) {
    const int index = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (index >= table.num_slots || table.decision->skip || !table.grads[index] ||
        table.groups[table.slots[index].group].kind != RuleKind::lamb)
        return;
    double param = 0.0, update = 0.0;
    for (int i = table.first_segments[index];
         i < table.num_segments && table.segments[i].slot == index; ++i) {
        param += table.trust[i].param;
        update += table.trust[i].update;
    }
    table.ratios[index] = param > 0.0 && update > 0.0 ? float(sqrt(param / update)) : 1.0f;
}

__global__ void __launch_bounds__(kThreads)
    finish_lamb_kernel(DeviceTable table, int first_segment) {
    const Segment segment = table.segments[first_segment + int(blockIdx.x)];
    if (table.decision->skip || !table.grads[segment.slot])
        return;
    const Slot slot = table.slots[segment.slot];
    Lamb rule;
    memcpy(&rule, &table.rules[segment.slot], sizeof(Lamb));
    const float rate = rule.lr * table.ratios[segment.slot];
    const int64_t end = segment.begin + segment.count;
    for (int64_t at = segment.begin + int64_t(threadIdx.x) * kVector; at < end;
         at += int64_t(kThreads) * kVector) {
        const int count = end - at < kVector ? int(end - at) : kVector;
        float p[kVector] = {}, m[kVector], v[kVector];
        load_param(slot, at, count, p);
        load(slot.states[0], slot.state_type, at, count, m);
        load(slot.states[1], slot.state_type, at, count, v);
#pragma unroll
        for (int i = 0; i < kVector; ++i)
            p[i] -= rate * rule.update(p[i], m[i], v[i]);
        store_param(slot, at, count, p);
    }
}

// ---------------------------------------------------------------------------- launchers

struct DeviceGuard {
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&previous), "cudaGetDevice");
        if (previous != device)
            check(cudaSetDevice(device), "cudaSetDevice");
        changed = previous != device;
    }
    ~DeviceGuard() {
        if (changed)
            cudaSetDevice(previous);
    }
    int previous = 0;
    bool changed = false;
};

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

// Pinned memory in which the host prepares what a copy will read later.
class Staging {
  public:
    explicit Staging(size_t bytes) : bytes_(bytes) {
        for (int i = 0; i < kStagingBuffers; ++i) {
            check(cudaMallocHost(&buffers_[i], bytes), "cudaMallocHost");
            check(cudaEventCreateWithFlags(&events_[i], cudaEventDisableTiming), "cudaEventCreate");
        }
    }
    ~Staging() {
        for (int i = 0; i < kStagingBuffers; ++i) {
            if (events_[i])
                cudaEventDestroy(events_[i]);
            if (buffers_[i])
                cudaFreeHost(buffers_[i]);
        }
    }
    Staging(const Staging &) = delete;
    Staging &operator=(const Staging &) = delete;

    void upload(void *to, const void *from, size_t bytes, cudaStream_t stream) {
        if (bytes > bytes_)
            throw std::logic_error("staging buffer too small");
        next_ = (next_ + 1) % kStagingBuffers;
        // Waits only for a host that is several uploads ahead of the device.
        check(cudaEventSynchronize(events_[next_]), "cudaEventSynchronize");
        memcpy(buffers_[next_], from, bytes);
        check(cudaMemcpyAsync(to, buffers_[next_], bytes, cudaMemcpyHostToDevice, stream),
              "cudaMemcpyAsync");
        check(cudaEventRecord(events_[next_], stream), "cudaEventRecord");
    }

  private:
    size_t bytes_;
    void *buffers_[kStagingBuffers] = {};
    cudaEvent_t events_[kStagingBuffers] = {};
    int next_ = 0;
};

bool is_capturing(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
    return status != cudaStreamCaptureStatusNone;
}

} // namespace

struct CudaTable::Impl {
    int device = 0;
    int first[kNumRules + 1] = {};
    DeviceTable table{};
    std::vector<void *> grads; // as they are on the device
    std::vector<Group> groups; // likewise
    std::unique_ptr<Staging> staging;

    void upload(void *to, const void *from, size_t bytes, cudaStream_t stream) {
        if (is_capturing(stream))
            throw std::runtime_error(
                "a captured step cannot change gradient addresses or group values: keep gradients "
                "in place (zero them, set_to_none=False) and run one step before the capture");
        staging->upload(to, from, bytes, stream);
    }

    void refresh(const std::vector<Slot> &slots, const std::vector<Group> &wanted,
                 cudaStream_t stream) {
        std::vector<void *> found(slots.size());
        for (size_t i = 0; i < slots.size(); ++i)
            found[i] = slots[i].grad;
        if (found != grads) {
            upload(table.grads, found.data(), found.size() * sizeof(void *), stream);
            grads.swap(found);
        }
        bool changed = false;
        for (size_t i = 0; i < wanted.size(); ++i)
            changed |= memcmp(wanted[i].values, groups[i].values, sizeof(Group::values)) != 0 ||
                       wanted[i].maximize != groups[i].maximize;
        if (changed) {
            upload(table.groups, wanted.data(), wanted.size() * sizeof(Group), stream);
            groups = wanted;
        }
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
        trust_kernel<<<(table.num_slots + kThreads - 1) / kThreads, kThreads, 0, stream>>>(table);
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
    size_t largest = slots.size() * sizeof(Slot);
    largest = std::max(largest, segments.size() * sizeof(Segment));
    largest = std::max(largest, groups.size() * sizeof(Group));
    impl_->staging.reset(new Staging(std::max<size_t>(largest, 256)));
    impl_->groups = groups;
    impl_->grads.resize(slots.size());
    for (size_t i = 0; i < slots.size(); ++i)
        impl_->grads[i] = slots[i].grad;
    const auto copy = [&](void *to, const auto &from) {
        if (!from.empty())
            impl_->upload(to, from.data(), from.size() * sizeof(from[0]), on);
    };
    copy(impl_->table.slots, slots);
    copy(impl_->table.groups, groups);
    copy(impl_->table.grads, impl_->grads);
    copy(impl_->table.segments, segments);
    std::vector<int> first_segments(slots.size(), int(segments.size()));
    for (size_t i = segments.size(); i-- > 0;)
        first_segments[size_t(segments[i].slot)] = int(i);
    copy(impl_->table.first_segments, first_segments);
}

CudaTable::~CudaTable() = default;

void CudaTable::step(const std::vector<Slot> &slots, const std::vector<Group> &groups,
                     const StepRequest &asked, const DeviceScalars &scalars, void *stream) {
    const DeviceGuard guard(impl_->device);
    const auto on = static_cast<cudaStream_t>(stream);
    StepRequest request = asked;
    if (request.norm == NormKind::none && request.check_finite)
        request.norm = NormKind::two; // its sum shows every gradient that is not finite
    impl_->refresh(slots, groups, on);
    const DeviceTable &table = impl_->table;
    if (request.norm != NormKind::none && table.num_segments > 0) {
        norm_kernel<<<table.num_segments, kThreads, 0, on>>>(table, request.norm,
                                                             request.norm_power);
        check(cudaGetLastError(), "norm_kernel");
    }
    decide_kernel<<<1, kThreads, 0, on>>>(table, request, scalars);
    check(cudaGetLastError(), "decide_kernel");
    const float limit = request.clip_value < 0.0 ? INFINITY : float(request.clip_value);
    impl_->apply(limit, request.zero, on);
}

const char *cuda_architectures() { return FT_CUDA_ARCHITECTURES; }

std::string cuda_problem() {
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count == 0)
        return "no CUDA device is visible";
    cudaFuncAttributes attributes;
    if (error == cudaSuccess) // fails when no code fits this device or its driver
        error = cudaFuncGetAttributes(&attributes, norm_kernel);
    cudaGetLastError(); // an error that was looked at must not surface in somebody else's call
    return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

} // namespace fasttrain
