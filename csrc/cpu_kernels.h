// The CPU kernels of one instruction set; cpu_kernels.cpp is compiled once for each.
#pragma once

#include "plan.h"

namespace fasttrain {

struct CpuKernels {
    const char *name;
    // Sum of squares, largest magnitude, or sum of powers of a segment's gradients; NaN stays NaN.
    double (*reduce)(const Slot &, const Segment &, NormKind, double power);
    // One pass of a rule over a segment.
    void (*apply[kNumRules])(const Slot &, const Segment &, const RuleBytes &, GradScale,
                             TrustSums *);
    // Elements [begin, begin + count): sum += grad; with `first`, sum = grad.
    void (*add)(float *sum, void *grad, Dtype type, int64_t begin, int64_t count, bool first);
    // LAMB's second half.
    void (*finish_lamb)(const Slot &, const Segment &, const RuleBytes &, float ratio);
};

const CpuKernels &cpu_kernels_baseline();
#ifdef FT_X86
const CpuKernels &cpu_kernels_avx2();
const CpuKernels &cpu_kernels_avx512();
#endif

} // namespace fasttrain
