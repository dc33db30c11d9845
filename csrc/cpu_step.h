// One optimizer step over a table on the CPU.
#pragma once

#include "cpu_kernels.h"

#include <string>

namespace fasttrain {

// The kernels that this CPU can run, slowest first.
std::vector<const CpuKernels *> runnable_cpu_kernels();

// Sum of squares of one gradient, for norms that are taken while backward runs.
double gradient_sum(const std::string &path, void *grad, int64_t numel, Dtype type, int threads);

// sum += grad, element by element; with `first`, sum = grad.
void add_gradient(const std::string &path, float *sum, void *grad, int64_t numel, Dtype type,
                  bool first, int threads);

class CpuTable {
  public:
    explicit CpuTable(const std::string &path);

    std::vector<Slot> slots;
    std::vector<Group> groups;

    // Cuts the slots into segments and tasks; call it when all slots are in.
    void finish();

    // Norm pass, decision, update pass. Slots without a gradient are passed over.
    StepReport step(const StepRequest &request);

  private:
    double reduce(const StepRequest &request);
    void prepare_rules();
    void apply(const StepRequest &request, float factor);
    void finish_lamb(int threads);
    void zero_gradients(int threads);
    int threads_for(int wanted) const;

    struct Task {
        int first, last; // segments
    };
    const CpuKernels &kernels_;
    std::vector<Segment> segments_;
    std::vector<Task> tasks_;
    std::vector<double> partials_;
    std::vector<TrustSums> trust_;
    std::vector<RuleBytes> rules_;
    std::vector<int> rule_of_slot_;
    int64_t total_ = 0;
    bool has_lamb_ = false;
};

} // namespace fasttrain
