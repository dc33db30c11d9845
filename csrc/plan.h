// The parameter table of one optimizer: what both backends read.
#pragma once

#include "rules.h"

#include <vector>

namespace fasttrain {

enum class Master : uint8_t {
    none,    // the parameter itself is what is updated
    full,    // a float32 copy is updated, the parameter is its rounded shadow
    split16, // int16: what must be added to a bfloat16 parameter's bits to get the float32 bits
};

enum class NormKind : int { none, two, inf, power };

// One parameter: where its elements live and how they are stored.
struct Slot {
    void *param = nullptr;
    void *grad = nullptr; // null: no gradient this time, the parameter is passed over
    void *states[3] = {nullptr, nullptr, nullptr};
    void *master = nullptr;
    float *step = nullptr; // number of updates, null where the rule keeps none
    int64_t numel = 0;
    int32_t group = 0;
    uint32_t seed = 0;      // of the stochastic rounding
    uint32_t step_seed = 0; // the same, this step's
    Dtype param_type = Dtype::float32;
    Dtype grad_type = Dtype::float32;
    Dtype state_type = Dtype::float32;
    Master master_kind = Master::none;
    bool stochastic = false; // round states stochastically (bfloat16 only)
    bool first = true;       // no update has happened yet
};

struct Group {
    RuleKind kind = RuleKind::sgd;
    double values[kMaxValues] = {}; // the learning rate first
    const float *lr_at = nullptr;   // on a GPU: where the learning rate is, instead
    bool maximize = false;
};

// A run of elements of one slot: the unit of the deterministic partial sums.
struct Segment {
    int32_t slot;
    int64_t begin, count;
};

// What one step is asked to do.
struct StepRequest {
    double unscale = 1.0; // 1 / (loss scale * accumulated batches)
    NormKind norm = NormKind::none;
    double norm_power = 2.0;
    double max_norm = -1.0;    // negative: no clipping by norm
    double clip_value = -1.0;  // negative: no clipping by value
    double extra_norm = 0.0;   // what gradients outside the table add to the sum (or maximum)
    double known_norm = -1.0;  // the sum over the table's gradients, where it is known already
    bool check_finite = false; // leave everything as it is when a gradient is not finite
    bool zero = false;         // zero the gradients on the way
    int threads = 1;
};

// Sums of squares over a segment that LAMB's trust ratio needs.
struct TrustSums {
    double param, update;
};

struct StepReport {
    double norm = 0.0; // unscaled, before clipping
    double coefficient = 1.0;
    bool finite = true;
};

// What a kernel multiplies and limits gradients with.
struct GradScale {
    float factor;
    float limit; // infinity: none
    bool zero;
};

} // namespace fasttrain
