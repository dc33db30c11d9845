// CPU kernels: blocks are brought to float32, a rule runs over them, and they are stored back.
//
// Compiled once per instruction set with FT_ISA naming it. Everything but the last function has
// internal linkage, so that no code of one set can stand in for another's. Contraction to fused
// multiply-add is off: all sets give the same bits.
#include "cpu_kernels.h"

#include <type_traits>

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace fasttrain {
namespace {

constexpr int64_t kBlock = 1024; // elements; the block's floats stay in the first-level cache
constexpr int kLanes = 16;       // of the partial sums, whatever the width of the registers

struct Buffers {
    alignas(64) float param[kBlock], grad[kBlock], states[3][kBlock];
};

void convert_from_bf16(const uint16_t *in, float *out, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
        out[i] = bf16_to_float(in[i]);
}

void convert_from_fp16(const uint16_t *in, float *out, int64_t n) {
    int64_t i = 0;
#ifdef __F16C__
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(
            out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(in + i))));
#endif
    for (; i < n; ++i)
        out[i] = fp16_to_float(in[i]);
}

void convert_to_bf16(const float *in, uint16_t *out, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
        out[i] = float_to_bf16(in[i]);
}

void convert_to_bf16_stochastic(const float *in, uint16_t *out, int64_t n, uint32_t seed,
                                uint32_t counter) {
    for (int64_t i = 0; i < n; ++i)
        out[i] = float_to_bf16_stochastic(in[i], random_bits(seed, counter + uint32_t(i)));
}

void convert_to_fp16(const float *in, uint16_t *out, int64_t n) {
    int64_t i = 0;
#ifdef __F16C__
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i *>(out + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; ++i)
        out[i] = float_to_fp16(in[i]);
}

// The master of a bfloat16 parameter in two halves; the parameter is the master rounded half up.
void join_halves(const uint16_t *high, const int16_t *rest, float *out, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
        out[i] = float_of((uint32_t(high[i]) << 16) + uint32_t(int32_t(rest[i])));
}

void split_halves(const float *in, uint16_t *high, int16_t *rest, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t bits = bits_of(in[i]);
        const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
        const uint32_t upper = finite ? (bits + 0x8000u) >> 16 : float_to_bf16(in[i]);
        high[i] = uint16_t(upper);
        rest[i] = finite ? int16_t(bits - (upper << 16)) : int16_t(0);
    }
}

// Elements [at, at + n) as floats: in place when they are, in `buffer` otherwise.
float *fetch(void *base, Dtype type, int64_t at, int64_t n, float *buffer) {
    if (type == Dtype::float32)
        return static_cast<float *>(base) + at;
    const uint16_t *halves = static_cast<uint16_t *>(base) + at;
    type == Dtype::bfloat16 ? convert_from_bf16(halves, buffer, n)
                            : convert_from_fp16(halves, buffer, n);
    return buffer;
}

// Rounds `values` back where they came from; nothing to do for floats, which were changed in place.
void put_back(const float *values, void *base, Dtype type, int64_t at, int64_t n) {
    if (type == Dtype::bfloat16)
        convert_to_bf16(values, static_cast<uint16_t *>(base) + at, n);
    else if (type == Dtype::float16)
        convert_to_fp16(values, static_cast<uint16_t *>(base) + at, n);
}

float *fetch_param(const Slot &slot, int64_t at, int64_t n, float *buffer) {
    if (slot.master_kind == Master::full)
        return static_cast<float *>(slot.master) + at;
    if (slot.master_kind == Master::none)
        return fetch(slot.param, slot.param_type, at, n, buffer);
    join_halves(static_cast<uint16_t *>(slot.param) + at, static_cast<int16_t *>(slot.master) + at,
                buffer, n);
    return buffer;
}

void put_back_param(const Slot &slot, const float *values, int64_t at, int64_t n) {
    if (slot.master_kind == Master::split16)
        split_halves(values, static_cast<uint16_t *>(slot.param) + at,
                     static_cast<int16_t *>(slot.master) + at, n);
    else
        put_back(values, slot.param, slot.param_type, at, n);
}

template <int States>
void put_back_states(const Slot &slot, float *const (&values)[3], int64_t at, int64_t n) {
    for (int k = 0; k < States; ++k) {
        if (slot.stochastic && slot.state_type == Dtype::bfloat16)
            convert_to_bf16_stochastic(values[k], static_cast<uint16_t *>(slot.states[k]) + at, n,
                                       slot.step_seed + uint32_t(k) * 0x632be5abu, uint32_t(at));
        else
            put_back(values[k], slot.states[k], slot.state_type, at, n);
    }
}

// The loop over one block. States beyond the rule's own are neither read nor written.
template <class Rule>
void run_block(const Rule &given, int64_t n, GradScale scale, float *__restrict p,
               const float *__restrict g, float *__restrict s0, float *__restrict s1,
               float *__restrict s2) {
    const Rule rule = given;
    const float factor = scale.factor, limit = scale.limit;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
        float grad = g[i] * factor;
        grad = grad > limit ? limit : (grad < -limit ? -limit : grad);
        float param = p[i], a = 0.0f, b = 0.0f, c = 0.0f;
        if constexpr (Rule::kStates > 0)
            a = s0[i];
        if constexpr (Rule::kStates > 1)
            b = s1[i];
        if constexpr (Rule::kStates > 2)
            c = s2[i];
        rule(param, grad, a, b, c);
        if constexpr (Rule::kStates > 0)
            s0[i] = a;
        if constexpr (Rule::kStates > 1)
            s1[i] = b;
        if constexpr (Rule::kStates > 2)
            s2[i] = c;
        if constexpr (!std::is_same_v<Rule, Lamb>)
            p[i] = param;
    }
}

double sum_lanes(const double (&lanes)[kLanes]) {
    double total = 0.0;
    for (double lane : lanes)
        total += lane;
    return total;
}

// Adds `term(i)` for i in [0, n) into fixed lanes, so that the result depends on nothing but n.
template <class Term> void add_lanes(double (&lanes)[kLanes], int64_t n, Term term) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
        for (int lane = 0; lane < kLanes; ++lane)
            lanes[lane] += term(i + lane);
    for (int lane = 0; i < n; ++i, ++lane)
        lanes[lane] += term(i);
}

void add_trust_sums(const Lamb &given, int64_t n, const float *p, const float *m, const float *v,
                    TrustSums *sums) {
    const Lamb rule = given;
    double params[kLanes] = {}, updates[kLanes] = {};
    add_lanes(params, n, [=](int64_t i) { return double(p[i]) * double(p[i]); });
    add_lanes(updates, n, [=](int64_t i) {
        const double update = rule.update(p[i], m[i], v[i]);
        return update * update;
    });
    sums->param += sum_lanes(params);
    sums->update += sum_lanes(updates);
}

template <class Rule>
void apply_rule(const Slot &slot, const Segment &segment, const RuleBytes &bytes, GradScale scale,
                TrustSums *sums) {
    static_assert(sizeof(Rule) <= sizeof(RuleBytes));
    Rule rule;
    memcpy(&rule, &bytes, sizeof(Rule));
    Buffers buffers;
    if constexpr (std::is_same_v<Rule, Lamb>)
        *sums = {0.0, 0.0};
    const int64_t end = segment.begin + segment.count;
    for (int64_t at = segment.begin; at < end; at += kBlock) {
        const int64_t n = end - at < kBlock ? end - at : kBlock;
        float *param = fetch_param(slot, at, n, buffers.param);
        float *grad = fetch(slot.grad, slot.grad_type, at, n, buffers.grad);
        float *states[3] = {nullptr, nullptr, nullptr};
        for (int k = 0; k < Rule::kStates; ++k)
            states[k] = fetch(slot.states[k], slot.state_type, at, n, buffers.states[k]);
        run_block(rule, n, scale, param, grad, states[0], states[1], states[2]);
        if constexpr (std::is_same_v<Rule, Lamb>)
            add_trust_sums(rule, n, param, states[0], states[1], sums);
        else
            put_back_param(slot, param, at, n);
        put_back_states<Rule::kStates>(slot, states, at, n);
        if (scale.zero)
            memset(static_cast<char *>(slot.grad) + at * size_of(slot.grad_type), 0,
                   size_t(n * size_of(slot.grad_type)));
    }
}

void finish_lamb(const Slot &slot, const Segment &segment, const RuleBytes &bytes, float ratio) {
    Lamb rule;
    memcpy(&rule, &bytes, sizeof(Lamb));
    const float rate = rule.lr * ratio;
    Buffers buffers;
    const int64_t end = segment.begin + segment.count;
    for (int64_t at = segment.begin; at < end; at += kBlock) {
        const int64_t n = end - at < kBlock ? end - at : kBlock;
        float *__restrict p = fetch_param(slot, at, n, buffers.param);
        const float *__restrict m =
            fetch(slot.states[0], slot.state_type, at, n, buffers.states[0]);
        const float *__restrict v =
            fetch(slot.states[1], slot.state_type, at, n, buffers.states[1]);
        for (int64_t i = 0; i < n; ++i)
            p[i] -= rate * rule.update(p[i], m[i], v[i]);
        put_back_param(slot, p, at, n);
    }
}

void add(float *sum, void *grad, Dtype type, int64_t begin, int64_t count, bool first) {
    alignas(64) float buffer[kBlock];
    const int64_t end = begin + count;
    for (int64_t at = begin; at < end; at += kBlock) {
        const int64_t n = end - at < kBlock ? end - at : kBlock;
        const float *__restrict g = fetch(grad, type, at, n, buffer);
        float *__restrict s = sum + at;
        for (int64_t i = 0; i < n; ++i)
            s[i] = first ? g[i] : s[i] + g[i];
    }
}

double largest_magnitude(const float *g, int64_t n) {
    float lanes[kLanes] = {};
    int64_t i = 0;
    const auto fold = [](float &largest, float value) {
        const float magnitude = value < 0.0f ? -value : value;
        largest = magnitude > largest || magnitude != magnitude ? magnitude : largest;
    };
    for (; i + kLanes <= n; i += kLanes)
        for (int lane = 0; lane < kLanes; ++lane)
            fold(lanes[lane], g[i + lane]);
    for (int lane = 0; i < n; ++i, ++lane)
        fold(lanes[lane], g[i]);
    float largest = 0.0f;
    for (float lane : lanes)
        fold(largest, lane);
    return largest;
}

double reduce(const Slot &slot, const Segment &segment, NormKind kind, double power) {
    alignas(64) float buffer[kBlock];
    double lanes[kLanes] = {};
    double largest = 0.0;
    const int64_t end = segment.begin + segment.count;
    for (int64_t at = segment.begin; at < end; at += kBlock) {
        const int64_t n = end - at < kBlock ? end - at : kBlock;
        const float *g = fetch(slot.grad, slot.grad_type, at, n, buffer);
        if (kind == NormKind::two) {
            add_lanes(lanes, n, [=](int64_t i) { return double(g[i]) * double(g[i]); });
        } else if (kind == NormKind::power) {
            add_lanes(lanes, n,
                      [=](int64_t i) { return __builtin_pow(__builtin_fabs(g[i]), power); });
        } else {
            const double block = largest_magnitude(g, n);
            largest = block > largest || block != block ? block : largest;
        }
    }
    return kind == NormKind::inf ? largest : sum_lanes(lanes);
}

CpuKernels make_kernels(const char *name) {
    CpuKernels kernels{};
    kernels.name = name;
    kernels.reduce = reduce;
    for (int kind = 0; kind < kNumRules; ++kind)
        kernels.apply[kind] = visit_rule(RuleKind(kind), [](auto *rule) {
            return &apply_rule<std::remove_pointer_t<decltype(rule)>>;
        });
    kernels.add = add;
    kernels.finish_lamb = finish_lamb;
    return kernels;
}

} // namespace

#define FT_JOIN_(a, b) a##b
#define FT_JOIN(a, b) FT_JOIN_(a, b)
#define FT_TEXT_(a) #a
#define FT_TEXT(a) FT_TEXT_(a)

const CpuKernels &FT_JOIN(cpu_kernels_, FT_ISA)() {
    static const CpuKernels kernels = make_kernels(FT_TEXT(FT_ISA));
    return kernels;
}

} // namespace fasttrain
