// One optimizer step over a table on a GPU: launches only, nothing is read back.
#pragma once

#include "plan.h"

#include <memory>
#include <string>

namespace fasttrain {

// Where a step reads and writes scalars on the device; null where there is nothing.
struct DeviceScalars {
    const float *scale = nullptr;     // the loss scale that gradients carry
    const float *found_inf = nullptr; // not zero: somebody found a non-finite gradient already
    float *norm_out = nullptr;        // the unscaled norm before clipping
    float *found_out = nullptr;       // 1 when the step was skipped
};

class CudaTable {
  public:
    // Bytes of device memory that a table of these slots needs.
    static size_t workspace_bytes(const std::vector<Slot> &slots, const std::vector<Group> &groups);

    // `workspace` is device memory of that size and must outlive the table. Copies the slots there.
    CudaTable(const std::vector<Slot> &slots, const std::vector<Group> &groups, int device,
              void *workspace, void *stream);
    ~CudaTable();

    // Norm pass, decision, update pass on `stream`. Gradient addresses and group values are copied
    // over only when they differ from the last step's; a captured step must not need that.
    void step(const std::vector<Slot> &slots, const std::vector<Group> &groups,
              const StepRequest &request, const DeviceScalars &scalars, void *stream);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// Architectures that the kernels were compiled for, as text.
const char *cuda_architectures();

// Why the kernels cannot run on the current device; empty when they can. Never throws.
std::string cuda_problem();

} // namespace fasttrain
