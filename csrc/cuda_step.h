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

    // `workspace` is device memory of that size and must outlive the table. Copies the slots there
    // and waits for it; not to be called while `stream` is being captured.
    CudaTable(const std::vector<Slot> &slots, const std::vector<Group> &groups, int device,
              void *workspace, void *stream);
    ~CudaTable();

    // Norm pass, decision, update pass on `stream`: launches only. Gradient addresses and group
    // values are sent along where they differ from the last step's. True when the step went into a
    // graph: the workspace must then live as long as the graph does.
    bool step(const std::vector<Slot> &slots, const std::vector<Group> &groups,
              const StepRequest &request, const DeviceScalars &scalars, void *stream);

    // Sets `first` of each slot to what the device knows. Waits for the stream.
    void read_first(std::vector<Slot> &slots, void *stream) const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// Architectures that the kernels were compiled for, as text.
const char *cuda_architectures();

// Why the kernels cannot run on the current device; empty when they can. Never throws.
std::string cuda_problem();

} // namespace fasttrain
