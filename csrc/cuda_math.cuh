// What a CUDA thread does with a few elements of a slot: load, convert, store; and a block's sums.
#pragma once

#include "plan.h"

#include <cuda_runtime.h>

namespace fasttrain {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 4; // elements per thread and turn: 16 bytes of float32
constexpr int64_t kTurn = int64_t(kThreads) * kVector;

// How a slot's arrays are stored; the usual ways have code of their own.
enum class Layout {
    plain,  // everything float32
    mixed,  // parameter and gradient bfloat16, master and states float32
    summed, // the same with gradients summed in float32
    any,
};

__device__ float load_one(const void *base, Dtype type, int64_t at) {
    if (type == Dtype::float32)
        return static_cast<const float *>(base)[at];
    const uint16_t half = static_cast<const uint16_t *>(base)[at];
    return type == Dtype::bfloat16 ? bf16_to_float(half) : fp16_to_float(half);
}

__device__ uint16_t narrow(float value, Dtype type) {
    return type == Dtype::bfloat16 ? float_to_bf16(value) : float_to_fp16(value);
}

__device__ void store_one(void *base, Dtype type, int64_t at, float value) {
    if (type == Dtype::float32)
        static_cast<float *>(base)[at] = value;
    else
        static_cast<uint16_t *>(base)[at] = narrow(value, type);
}

__device__ bool is_aligned(const void *base, int64_t element_bytes) {
    return (reinterpret_cast<uintptr_t>(base) & uintptr_t(kVector * element_bytes - 1)) == 0;
}

// Whether all arrays of a slot take wide accesses; null counts as aligned.
__device__ bool is_wide(const Slot &slot, const void *grad) {
    bool wide = is_aligned(slot.param, size_of(slot.param_type)) &&
                is_aligned(grad, size_of(slot.grad_type)) &&
                is_aligned(slot.master, slot.master_kind == Master::split16 ? 2 : 4);
    for (int k = 0; k < 3; ++k)
        wide &= is_aligned(slot.states[k], size_of(slot.state_type));
    return wide;
}

__device__ Layout layout_of(const Slot &slot) {
    if (slot.state_type != Dtype::float32)
        return Layout::any;
    if (slot.param_type == Dtype::float32 && slot.grad_type == Dtype::float32 &&
        slot.master_kind == Master::none)
        return Layout::plain;
    if (slot.param_type != Dtype::bfloat16 || slot.master_kind != Master::full)
        return Layout::any;
    return slot.grad_type == Dtype::bfloat16  ? Layout::mixed
           : slot.grad_type == Dtype::float32 ? Layout::summed
                                              : Layout::any;
}

// The same slot with what its layout says written as constants, for the compiler to see.
template <Layout L> __device__ Slot with_layout(Slot slot) {
    if constexpr (L != Layout::any) {
        slot.param_type = L == Layout::plain ? Dtype::float32 : Dtype::bfloat16;
        slot.grad_type = L == Layout::mixed ? Dtype::bfloat16 : Dtype::float32;
        slot.state_type = Dtype::float32;
        slot.master_kind = L == Layout::plain ? Master::none : Master::full;
    }
    return slot;
}

__device__ int count_at(int64_t at, int64_t end) {
    const int64_t left = end - at;
    return left < kVector ? (left < 0 ? 0 : int(left)) : kVector;
}

// Up to four elements from `at` on, the absent ones zero; one access where `wide` allows it.
__device__ void load(const void *base, Dtype type, int64_t at, int count, bool wide,
                     float (&out)[kVector]) {
    if (wide && count == kVector) {
        if (type == Dtype::float32) {
            const float4 v =
                *reinterpret_cast<const float4 *>(static_cast<const float *>(base) + at);
            out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
        } else {
            const uint2 v =
                *reinterpret_cast<const uint2 *>(static_cast<const uint16_t *>(base) + at);
            const uint16_t halves[kVector] = {uint16_t(v.x), uint16_t(v.x >> 16), uint16_t(v.y),
                                              uint16_t(v.y >> 16)};
#pragma unroll
            for (int i = 0; i < kVector; ++i)
                out[i] =
                    type == Dtype::bfloat16 ? bf16_to_float(halves[i]) : fp16_to_float(halves[i]);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i)
        out[i] = i < count ? load_one(base, type, at + i) : 0.0f;
}

__device__ void store_halves(uint16_t *base, int64_t at, int count, bool wide,
                             const uint16_t (&halves)[kVector]) {
    if (wide && count == kVector) {
        *reinterpret_cast<uint2 *>(base + at) =
            make_uint2(uint32_t(halves[0]) | uint32_t(halves[1]) << 16,
                       uint32_t(halves[2]) | uint32_t(halves[3]) << 16);
        return;
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i)
        if (i < count)
            base[at + i] = halves[i];
}

__device__ void store(void *base, Dtype type, int64_t at, int count, bool wide,
                      const float (&values)[kVector]) {
    if (type == Dtype::float32) {
        if (wide && count == kVector) {
            *reinterpret_cast<float4 *>(static_cast<float *>(base) + at) =
                make_float4(values[0], values[1], values[2], values[3]);
            return;
        }
#pragma unroll
        for (int i = 0; i < kVector; ++i)
            if (i < count)
                store_one(base, type, at + i, values[i]);
        return;
    }
    uint16_t halves[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i)
        halves[i] = narrow(values[i], type);
    store_halves(static_cast<uint16_t *>(base), at, count, wide, halves);
}

__device__ void load_param(const Slot &slot, int64_t at, int count, bool wide,
                           float (&out)[kVector]) {
    if (slot.master_kind == Master::full) {
        load(slot.master, Dtype::float32, at, count, wide, out);
    } else if (slot.master_kind == Master::none) {
        load(slot.param, slot.param_type, at, count, wide, out);
    } else {
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
            if (i >= count)
                break;
            const uint32_t high = static_cast<const uint16_t *>(slot.param)[at + i];
            const int16_t rest = static_cast<const int16_t *>(slot.master)[at + i];
            out[i] = float_of((high << 16) + uint32_t(int32_t(rest)));
        }
    }
}

__device__ void store_param(const Slot &slot, int64_t at, int count, bool wide,
                            const float (&values)[kVector]) {
    if (slot.master_kind == Master::full)
        store(slot.master, Dtype::float32, at, count, wide, values);
    if (slot.master_kind != Master::split16) {
        store(slot.param, slot.param_type, at, count, wide, values);
        return;
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
        if (i >= count)
            break;
        const uint32_t bits = bits_of(values[i]);
        const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
        const uint32_t upper = finite ? (bits + 0x8000u) >> 16 : float_to_bf16(values[i]);
        static_cast<uint16_t *>(slot.param)[at + i] = uint16_t(upper);
        static_cast<int16_t *>(slot.master)[at + i] =
            finite ? int16_t(bits - (upper << 16)) : int16_t(0);
    }
}

__device__ void store_state(const Slot &slot, int k, int64_t at, int count, bool wide,
                            const float (&values)[kVector]) {
    if (!slot.stochastic || slot.state_type != Dtype::bfloat16) {
        store(slot.states[k], slot.state_type, at, count, wide, values);
        return;
    }
    uint16_t halves[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i)
        halves[i] = float_to_bf16_stochastic(
            values[i], random_bits(slot.step_seed + uint32_t(k) * 0x632be5abu, uint32_t(at + i)));
    store_halves(static_cast<uint16_t *>(slot.states[k]), at, count, wide, halves);
}

__device__ double combine(NormKind kind, double left, double right) {
    if (kind != NormKind::inf)
        return left + right;
    return right > left || right != right ? right : left;
}

// The block's result in every thread; a tree in shared memory, the same order every time.
__device__ double reduce_block(NormKind kind, double value) {
    __shared__ double shared[kThreads];
    __syncthreads();
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            shared[threadIdx.x] = combine(kind, shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    return shared[0];
}

} // namespace
} // namespace fasttrain
