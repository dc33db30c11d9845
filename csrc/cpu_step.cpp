#include "cpu_step.h"

#include "parallel.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace fasttrain {
namespace {

constexpr int64_t kTaskElements = 32768;   // a task's arrays fit a core's second-level cache
constexpr int64_t kSerialElements = 65536; // per thread; below it a region costs more than it saves

const CpuKernels &find_kernels(const std::string &path) {
    for (const CpuKernels *kernels : runnable_cpu_kernels())
        if (path == kernels->name)
            return *kernels;
    throw std::invalid_argument("this CPU has no code path named '" + path + "'");
}

double combine(NormKind kind, double left, double right) {
    if (kind != NormKind::inf)
        return left + right;
    return right > left || right != right ? right : left;
}

double norm_of(double reduced, NormKind kind, double power) {
    if (kind == NormKind::two)
        return std::sqrt(reduced);
    return kind == NormKind::power ? std::pow(reduced, 1.0 / power) : reduced;
}

// What gradients are multiplied with so that their norm does not pass `max_norm`.
double clip_coefficient(double norm, double max_norm) {
    if (max_norm < 0.0)
        return 1.0;
    const double coefficient = max_norm / (norm + 1e-6);
    return coefficient > 1.0 ? 1.0 : coefficient; // a NaN stays
}

} // namespace

std::vector<const CpuKernels *> runnable_cpu_kernels() {
    std::vector<const CpuKernels *> found{&cpu_kernels_baseline()};
#ifdef FT_X86
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"))
        found.push_back(&cpu_kernels_avx2());
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found.push_back(&cpu_kernels_avx512());
#endif
    return found;
}

CpuTable::CpuTable(const std::string &path) : kernels_(find_kernels(path)) {}

void CpuTable::finish() {
    segments_.clear();
    tasks_.clear();
    total_ = 0;
    has_lamb_ = false;
    int64_t filled = kTaskElements;
    for (size_t index = 0; index < slots.size(); ++index) {
        const Slot &slot = slots[index];
        total_ += slot.numel;
        has_lamb_ |= groups[size_t(slot.group)].kind == RuleKind::lamb;
        for (int64_t at = 0; at < slot.numel; at += kTaskElements) {
            const int64_t count = std::min(kTaskElements, slot.numel - at);
            if (filled + count > kTaskElements) {
                tasks_.push_back({int(segments_.size()), int(segments_.size())});
                filled = 0;
            }
            segments_.push_back({int32_t(index), at, count});
            tasks_.back().last = int(segments_.size());
            filled += count;
        }
    }
    partials_.assign(segments_.size(), 0.0);
    trust_.assign(has_lamb_ ? segments_.size() : 0, TrustSums{});
}

int CpuTable::threads_for(int wanted) const {
    return int(std::clamp<int64_t>(total_ / kSerialElements, 1, std::max(wanted, 1)));
}

double CpuTable::reduce(const StepRequest &request) {
    parallel_tasks(int64_t(tasks_.size()), threads_for(request.threads), [&](int64_t task) {
        for (int i = tasks_[size_t(task)].first; i < tasks_[size_t(task)].last; ++i) {
            const Segment &segment = segments_[size_t(i)];
            const Slot &slot = slots[size_t(segment.slot)];
            partials_[size_t(i)] =
                slot.grad ? kernels_.reduce(slot, segment, request.norm, request.norm_power) : 0.0;
        }
    });
    double total = request.extra_norm;
    for (double partial : partials_)
        total = combine(request.norm, total, partial);
    return total;
}

namespace {

// Calls `task(i, begin, count)` for each piece of one tensor.
template <class Task> void parallel_pieces(int64_t numel, int threads, Task &&task) {
    const int64_t team = std::clamp<int64_t>(numel / kSerialElements, 1, std::max(threads, 1));
    parallel_tasks((numel + kTaskElements - 1) / kTaskElements, int(team), [&](int64_t i) {
        const int64_t begin = i * kTaskElements;
        task(i, begin, std::min(kTaskElements, numel - begin));
    });
}

} // namespace

double gradient_sum(const std::string &path, void *grad, int64_t numel, Dtype type, int threads) {
    const CpuKernels &kernels = find_kernels(path);
    Slot slot;
    slot.grad = grad;
    slot.grad_type = type;
    std::vector<double> partials(size_t((numel + kTaskElements - 1) / kTaskElements), 0.0);
    parallel_pieces(numel, threads, [&](int64_t i, int64_t begin, int64_t count) {
        partials[size_t(i)] = kernels.reduce(slot, {0, begin, count}, NormKind::two, 2.0);
    });
    double total = 0.0;
    for (double partial : partials)
        total += partial;
    return total;
}

void add_gradient(const std::string &path, float *sum, void *grad, int64_t numel, Dtype type,
                  bool first, int threads) {
    const CpuKernels &kernels = find_kernels(path);
    parallel_pieces(numel, threads, [&](int64_t, int64_t begin, int64_t count) {
        kernels.add(sum, grad, type, begin, count, first);
    });
}

// Advances the step counts and builds one rule per different (group, count).
void CpuTable::prepare_rules() {
    rules_.clear();
    rule_of_slot_.assign(slots.size(), -1);
    int last_group = -1;
    double last_step = -1.0;
    bool last_first = false;
    for (size_t index = 0; index < slots.size(); ++index) {
        Slot &slot = slots[index];
        if (!slot.grad)
            continue;
        const double step = slot.step ? double(*slot.step += 1.0f) : 0.0;
        if (slot.group != last_group || step != last_step || slot.first != last_first) {
            last_group = slot.group, last_step = step, last_first = slot.first;
            const Group &group = groups[size_t(slot.group)];
            rules_.push_back({});
            visit_rule(group.kind, [&](auto *rule) {
                store_rule(rules_.back(), rule->make(group.values, step, slot.first));
            });
        }
        slot.first = false;
        slot.step_seed = random_bits(slot.seed, uint32_t(int64_t(step)));
        rule_of_slot_[index] = int(rules_.size()) - 1;
    }
}

void CpuTable::apply(const StepRequest &request, float factor) {
    const float limit = request.clip_value < 0.0 ? std::numeric_limits<float>::infinity()
                                                 : float(request.clip_value);
    const int64_t last = int64_t(tasks_.size()) - 1;
    // Backwards: the gradients that the norm pass read last are still in the cache.
    parallel_tasks(last + 1, threads_for(request.threads), [&](int64_t task) {
        const Task &range = tasks_[size_t(last - task)];
        for (int i = range.last - 1; i >= range.first; --i) {
            const Segment &segment = segments_[size_t(i)];
            const Slot &slot = slots[size_t(segment.slot)];
            if (!slot.grad)
                continue;
            const Group &group = groups[size_t(slot.group)];
            const GradScale scale{group.maximize ? -factor : factor, limit, request.zero};
            kernels_.apply[int(group.kind)](slot, segment,
                                            rules_[size_t(rule_of_slot_[size_t(segment.slot)])],
                                            scale, has_lamb_ ? &trust_[size_t(i)] : nullptr);
        }
    });
    if (has_lamb_)
        finish_lamb(request.threads);
}

void CpuTable::finish_lamb(int threads) {
    std::vector<TrustSums> sums(slots.size(), TrustSums{0.0, 0.0});
    for (size_t i = 0; i < segments_.size(); ++i) {
        TrustSums &sum = sums[size_t(segments_[i].slot)];
        sum.param += trust_[i].param;
        sum.update += trust_[i].update;
    }
    parallel_tasks(int64_t(tasks_.size()), threads_for(threads), [&](int64_t task) {
        for (int i = tasks_[size_t(task)].first; i < tasks_[size_t(task)].last; ++i) {
            const Segment &segment = segments_[size_t(i)];
            const Slot &slot = slots[size_t(segment.slot)];
            if (!slot.grad || groups[size_t(slot.group)].kind != RuleKind::lamb)
                continue;
            const TrustSums &sum = sums[size_t(segment.slot)];
            const bool usable = sum.param > 0.0 && sum.update > 0.0;
            const double ratio = usable ? std::sqrt(sum.param / sum.update) : 1.0;
            kernels_.finish_lamb(slot, segment, rules_[size_t(rule_of_slot_[size_t(segment.slot)])],
                                 float(ratio));
        }
    });
}

void CpuTable::zero_gradients(int threads) {
    parallel_tasks(int64_t(tasks_.size()), threads_for(threads), [&](int64_t task) {
        for (int i = tasks_[size_t(task)].first; i < tasks_[size_t(task)].last; ++i) {
            const Segment &segment = segments_[size_t(i)];
            const Slot &slot = slots[size_t(segment.slot)];
            if (slot.grad)
                memset(static_cast<char *>(slot.grad) + segment.begin * size_of(slot.grad_type), 0,
                       size_t(segment.count * size_of(slot.grad_type)));
        }
    });
}

StepReport CpuTable::step(const StepRequest &asked) {
    StepRequest request = asked;
    if (request.norm == NormKind::none && request.check_finite)
        request.norm = NormKind::two; // its sum shows every gradient that is not finite
    StepReport report;
    if (request.norm != NormKind::none) {
        const bool known = request.norm == NormKind::two && !(request.known_norm < 0.0);
        const double reduced = known ? request.known_norm + request.extra_norm : reduce(request);
        report.finite = std::isfinite(reduced);
        report.norm =
            norm_of(reduced, request.norm, request.norm_power) * std::abs(request.unscale);
        report.coefficient = clip_coefficient(report.norm, request.max_norm);
    }
    if (request.check_finite && !report.finite) {
        if (request.zero)
            zero_gradients(request.threads);
        return report;
    }
    prepare_rules();
    apply(request, float(request.unscale * report.coefficient));
    return report;
}

} // namespace fasttrain
