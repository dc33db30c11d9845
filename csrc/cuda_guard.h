// What every launcher needs: errors as exceptions, the right device, the state of a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace fasttrain {

inline void check(cudaError_t error, const char *what) {
    if (error != cudaSuccess)
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

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

inline bool is_capturing(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
    return status != cudaStreamCaptureStatusNone;
}

} // namespace fasttrain
