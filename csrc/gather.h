// Scalars of many types from many places, read into one row of float64: what both backends share.
#pragma once

#include "common.h"

#include <cstddef>
#include <vector>

namespace fasttrain {

enum class ScalarType : uint8_t {
    float64,
    float32,
    float16,
    bfloat16,
    int64, // whole numbers from here on
    int32,
    int16,
    int8,
    uint64,
    uint32,
    uint16,
    uint8,
    boolean
};

// torch's name of each, and how DLPack writes it.
struct ScalarKind {
    const char *name;
    uint8_t code; // 0 int, 1 unsigned, 2 float, 4 bfloat, 6 bool
    uint8_t bits;
};
constexpr ScalarKind kScalarKinds[] = {
    {"float64", 2, 64}, {"float32", 2, 32}, {"float16", 2, 16}, {"bfloat16", 4, 16},
    {"int64", 0, 64},   {"int32", 0, 32},   {"int16", 0, 16},   {"int8", 0, 8},
    {"uint64", 1, 64},  {"uint32", 1, 32},  {"uint16", 1, 16},  {"uint8", 1, 8},
    {"bool", 6, 8},
};
constexpr int kNumScalarTypes = int(ScalarType::boolean) + 1;
static_assert(sizeof(kScalarKinds) / sizeof(ScalarKind) == kNumScalarTypes);

constexpr bool is_whole(ScalarType type) { return type >= ScalarType::int64; }

template <class T> FT_HD T load_scalar(const void *at) {
    T value;
    memcpy(&value, at, sizeof(T));
    return value;
}

// The number at an address; 64-bit integers beyond 2^53 are rounded.
FT_HD double scalar_at(const void *at, ScalarType type) {
    switch (type) {
    case ScalarType::float64:
        return load_scalar<double>(at);
    case ScalarType::float32:
        return double(load_scalar<float>(at));
    case ScalarType::float16:
        return double(fp16_to_float(load_scalar<uint16_t>(at)));
    case ScalarType::bfloat16:
        return double(bf16_to_float(load_scalar<uint16_t>(at)));
    case ScalarType::int64:
        return double(load_scalar<int64_t>(at));
    case ScalarType::int32:
        return double(load_scalar<int32_t>(at));
    case ScalarType::int16:
        return double(load_scalar<int16_t>(at));
    case ScalarType::int8:
        return double(load_scalar<int8_t>(at));
    case ScalarType::uint64:
        return double(load_scalar<uint64_t>(at));
    case ScalarType::uint32:
        return double(load_scalar<uint32_t>(at));
    case ScalarType::uint16:
        return double(load_scalar<uint16_t>(at));
    case ScalarType::uint8:
        return double(load_scalar<uint8_t>(at));
    case ScalarType::boolean:
        return load_scalar<uint8_t>(at) != 0 ? 1.0 : 0.0;
    }
    return 0.0;
}

struct ScalarSource {
    const void *at;
    ScalarType type;
};

// What one launch carries along. All devices take 4 KiB of kernel arguments; a step's usual
// handful of scalars travels in a small form, since arguments are copied at every launch.
template <int Capacity> struct GatherArguments {
    static constexpr int capacity = Capacity;
    double *row;
    int count;
    const void *at[Capacity];
    ScalarType types[Capacity];
};
using FewScalars = GatherArguments<48>;
using ManyScalars = GatherArguments<448>;
static_assert(sizeof(ManyScalars) <= 4096);

// The work of one thread.
template <class Arguments> FT_HD void gather_element(const Arguments &arguments, int i) {
    if (i < arguments.count)
        arguments.row[i] = scalar_at(arguments.at[i], arguments.types[i]);
}

template <class Arguments> void fill(Arguments &part, const ScalarSource *sources) {
    for (int i = 0; i < part.count; ++i) {
        part.at[i] = sources[i].at;
        part.types[i] = sources[i].type;
    }
}

// Cuts `sources` into parts that fit a launch each, and calls `launch(part)` for them.
template <class Launch>
void gather_in_parts(const std::vector<ScalarSource> &sources, double *row, Launch &&launch) {
    for (std::size_t start = 0; start < sources.size();) {
        const std::size_t left = sources.size() - start;
        const auto go = [&](auto &part) {
            constexpr std::size_t capacity = std::size_t(std::decay_t<decltype(part)>::capacity);
            part.row = row + start;
            part.count = int(left < capacity ? left : capacity);
            fill(part, sources.data() + start);
            launch(part);
            start += std::size_t(part.count);
        };
        if (left <= std::size_t(FewScalars::capacity)) {
            FewScalars part;
            go(part);
        } else {
            ManyScalars part;
            go(part);
        }
    }
}

// Reads scalars of the host into a row on the host.
void gather_host(const std::vector<ScalarSource> &sources, double *row);

#ifdef FT_CUDA
// Reads scalars of a GPU into a row on it, on `stream`: launches only. Throws while the stream is
// captured: the replays of a graph would overwrite the row.
void gather_cuda(const std::vector<ScalarSource> &sources, double *row, int device, void *stream);
#endif

} // namespace fasttrain
