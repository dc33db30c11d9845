// The CUDA kernels of a step: one per pass, each block on one segment.
#pragma once

#include "cuda_math.cuh"
#include "cuda_step.h"

#include <cstddef>
#include <type_traits>

namespace fasttrain {
namespace {

constexpr int kBlocks = 4; // per multiprocessor: at most 64 registers per thread
constexpr int kBatch = 4;  // vectors per thread that the norm pass has under way
constexpr int64_t kSegmentElements = 16384;
constexpr size_t kPayloadBytes = 3840; // all devices take 4 KiB of kernel arguments

// What the decision leaves for the update pass.
struct Decision {
    float factor;
    int skip;
};

// What one launch carries to the device.
struct Payload {
    uint32_t words[kPayloadBytes / 4];
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

// Copies a launch's own arguments to device memory.
__global__ void write_kernel(uint32_t *to, const __grid_constant__ Payload payload, int words) {
    for (int i = int(threadIdx.x); i < words; i += int(blockDim.x))
        to[i] = payload.words[i];
}

template <NormKind Kind>
__global__ void __launch_bounds__(kThreads) norm_kernel(DeviceTable table, double power) {
    const Segment segment = table.segments[blockIdx.x];
    const Dtype type = table.slots[segment.slot].grad_type;
    const void *grad = table.grads[segment.slot];
    const bool wide = is_aligned(grad, size_of(type));
    const int64_t end = grad ? segment.begin + segment.count : 0;
    double sum = 0.0;
    for (int64_t at = segment.begin + int64_t(threadIdx.x) * kVector; at < end;
         at += kBatch * kTurn) {
        float g[kBatch][kVector];
#pragma unroll
        for (int b = 0; b < kBatch; ++b)
            load(grad, type, at + b * kTurn, count_at(at + b * kTurn, end), wide, g[b]);
#pragma unroll
        for (int i = 0; i < kBatch * kVector; ++i) { // absent elements are zero
            const double value = g[i / kVector][i % kVector];
            sum = combine(Kind, sum,
                          Kind == NormKind::two   ? value * value
                          : Kind == NormKind::inf ? fabs(value)
                                                  : pow(fabs(value), power));
        }
    }
    sum = reduce_block(Kind, sum);
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
        double values[kMaxValues];
        for (int i = 0; i < kMaxValues; ++i)
            values[i] = group.values[i];
        if (group.lr_at)
            values[0] = double(*group.lr_at);
        visit_rule(group.kind, [&](auto *rule) {
            store_rule(table.rules[index], rule->make(values, step, first));
        });
        slot.first = false;
        slot.step_seed = random_bits(slot.seed, uint32_t(int64_t(step)));
    }
}

template <class Rule> __device__ Rule rule_of(const RuleBytes &room) {
    Rule rule;
    memcpy(&rule, __builtin_assume_aligned(&room, alignof(RuleBytes)), sizeof(Rule));
    return rule;
}

// What the update pass does with every gradient.
struct Treatment {
    float factor, limit;
    bool zero;
};

// The update of one segment; returns what LAMB's trust ratio needs of this thread's elements.
template <class Rule, Layout L>
__device__ TrustSums update_segment(const Slot &stored, const Rule &rule, void *grad,
                                    const Segment &segment, const Treatment &treatment, bool wide) {
    constexpr bool is_lamb = std::is_same_v<Rule, Lamb>;
    const Slot slot = with_layout<L>(stored);
    const float zeros[kVector] = {};
    TrustSums sums{0.0, 0.0};
    const int64_t end = segment.begin + segment.count;
    for (int64_t at = segment.begin + int64_t(threadIdx.x) * kVector; at < end; at += kTurn) {
        const int count = count_at(at, end);
        float p[kVector] = {}, g[kVector], s[3][kVector] = {};
        load_param(slot, at, count, wide, p);
        load(grad, slot.grad_type, at, count, wide, g);
#pragma unroll
        for (int k = 0; k < Rule::kStates; ++k)
            load(slot.states[k], slot.state_type, at, count, wide, s[k]);
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
            const float limit = treatment.limit;
            float value = g[i] * treatment.factor;
            value = value > limit ? limit : (value < -limit ? -limit : value);
            rule(p[i], value, s[0][i], s[1][i], s[2][i]);
            if constexpr (is_lamb) {
                if (i < count) {
                    const double update = rule.update(p[i], s[0][i], s[1][i]);
                    sums.param += double(p[i]) * double(p[i]);
                    sums.update += update * update;
                }
            }
        }
        if constexpr (!is_lamb)
            store_param(slot, at, count, wide, p);
#pragma unroll
        for (int k = 0; k < Rule::kStates; ++k)
            store_state(slot, k, at, count, wide, s[k]);
        if (treatment.zero)
            store(grad, slot.grad_type, at, count, wide, zeros);
    }
    return sums;
}

__device__ void zero_segment(void *grad, Dtype type, const Segment &segment) {
    const bool wide = is_aligned(grad, size_of(type));
    const int64_t end = segment.begin + segment.count;
    const float zeros[kVector] = {};
    for (int64_t at = segment.begin + int64_t(threadIdx.x) * kVector; at < end; at += kTurn)
        store(grad, type, at, count_at(at, end), wide, zeros);
}

// The update of all segments from `first_segment` on, which are of one rule.
template <class Rule>
__global__ void __launch_bounds__(kThreads, kBlocks)
    apply_kernel(DeviceTable table, int first_segment, float limit, bool zero) {
    const int index = first_segment + int(blockIdx.x);
    const Segment segment = table.segments[index];
    void *grad = table.grads[segment.slot];
    if (!grad)
        return;
    const Slot &slot = table.slots[segment.slot];
    const Decision decision = *table.decision;
    if (decision.skip) {
        if (zero)
            zero_segment(grad, slot.grad_type, segment);
        return;
    }
    const Rule rule = rule_of<Rule>(table.rules[segment.slot]);
    const float factor = table.groups[slot.group].maximize ? -decision.factor : decision.factor;
    const Treatment treatment{factor, limit, zero};
    const bool wide = is_wide(slot, grad);
    const Layout layout = wide ? layout_of(slot) : Layout::any;
    TrustSums sums =
        layout == Layout::plain
            ? update_segment<Rule, Layout::plain>(slot, rule, grad, segment, treatment, true)
        : layout == Layout::mixed
            ? update_segment<Rule, Layout::mixed>(slot, rule, grad, segment, treatment, true)
        : layout == Layout::summed
            ? update_segment<Rule, Layout::summed>(slot, rule, grad, segment, treatment, true)
            : update_segment<Rule, Layout::any>(slot, rule, grad, segment, treatment, wide);
    if constexpr (std::is_same_v<Rule, Lamb>) {
        sums = {reduce_block(NormKind::two, sums.param), reduce_block(NormKind::two, sums.update)};
        if (threadIdx.x == 0)
            table.trust[index] = sums;
    }
}

// One block per slot: LAMB's trust ratio from the sums of the slot's segments.
__global__ void __launch_bounds__(kThreads) trust_kernel(DeviceTable table) {
    const int index = int(blockIdx.x);
    if (table.decision->skip || !table.grads[index] ||
        table.groups[table.slots[index].group].kind != RuleKind::lamb)
        return;
    double param = 0.0, update = 0.0;
    for (int i = table.first_segments[index] + int(threadIdx.x);
         i < table.num_segments && table.segments[i].slot == index; i += kThreads) {
        param += table.trust[i].param;
        update += table.trust[i].update;
    }
    param = reduce_block(NormKind::two, param);
    update = reduce_block(NormKind::two, update);
    if (threadIdx.x == 0)
        table.ratios[index] = param > 0.0 && update > 0.0 ? float(sqrt(param / update)) : 1.0f;
}

__global__ void __launch_bounds__(kThreads)
    finish_lamb_kernel(DeviceTable table, int first_segment) {
    const Segment segment = table.segments[first_segment + int(blockIdx.x)];
    if (table.decision->skip || !table.grads[segment.slot])
        return;
    const Slot slot = table.slots[segment.slot];
    const bool wide = is_wide(slot, nullptr);
    const Lamb rule = rule_of<Lamb>(table.rules[segment.slot]);
    const float rate = rule.lr * table.ratios[segment.slot];
    const int64_t end = segment.begin + segment.count;
    for (int64_t at = segment.begin + int64_t(threadIdx.x) * kVector; at < end; at += kTurn) {
        const int count = count_at(at, end);
        float p[kVector] = {}, m[kVector], v[kVector];
        load_param(slot, at, count, wide, p);
        load(slot.states[0], slot.state_type, at, count, wide, m);
        load(slot.states[1], slot.state_type, at, count, wide, v);
#pragma unroll
        for (int i = 0; i < kVector; ++i)
            p[i] -= rate * rule.update(p[i], m[i], v[i]);
        store_param(slot, at, count, wide, p);
    }
}

} // namespace
} // namespace fasttrain
