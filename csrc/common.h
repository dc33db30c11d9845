// What every native source shares: the host/device macro, element types and their conversions.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define FT_HD __host__ __device__ __forceinline__
#else
// Always inlined: the same header is compiled for several instruction sets, and an out-of-line copy
// could be picked by the linker for a CPU that cannot run it.
#define FT_HD inline __attribute__((always_inline))
#endif

namespace fasttrain {

enum class Dtype : uint8_t { float32 = 0, bfloat16 = 1, float16 = 2 };

FT_HD constexpr int64_t size_of(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 2; }

FT_HD uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

FT_HD float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// bfloat16 is the upper half of a float.
FT_HD float bf16_to_float(uint16_t half) { return float_of(uint32_t(half) << 16); }

// Round to nearest even; a NaN stays a NaN.
FT_HD uint16_t float_to_bf16(float value) {
    const uint32_t bits = bits_of(value);
    const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    return uint16_t((value != value ? (bits | 0x400000u) : rounded) >> 16);
}

// Round up with a probability equal to the part that is cut off; `random` has 16 random low bits.
FT_HD uint16_t float_to_bf16_stochastic(float value, uint32_t random) {
    const uint32_t bits = bits_of(value);
    const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
    const uint32_t rounded = bits + (finite ? (random & 0xffffu) : 0u);
    return uint16_t((value != value ? (bits | 0x400000u) : rounded) >> 16);
}

// IEEE half precision without hardware help: exact, denormals included.
FT_HD float fp16_to_float(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000u) << 16;
    const uint32_t magnitude = half & 0x7fffu;
    const float scaled = float_of(magnitude << 13) * 5.192296858534828e+33f; // 2^112
    const uint32_t bits =
        magnitude >= 0x7c00u ? ((magnitude << 13) | 0x7f800000u) : bits_of(scaled);
    return float_of(bits | sign);
}

FT_HD uint16_t float_to_fp16(float value) {
    const uint32_t bits = bits_of(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    // Normal range: rebias and round to nearest even. Below it: let a float addition round.
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const uint32_t tiny = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t result = magnitude < 0x38800000u ? tiny : normal;
    result = magnitude >= 0x477ff000u ? 0x7c00u : result;
    result = magnitude > 0x7f800000u ? 0x7e00u : result;
    return uint16_t(result | sign);
}

// A 32-bit mix (the finaliser of a multiplicative hash): one random word per (seed, counter).
FT_HD uint32_t random_bits(uint32_t seed, uint32_t counter) {
    uint32_t x = counter * 0x9e3779b9u + seed;
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x;
}

} // namespace fasttrain
