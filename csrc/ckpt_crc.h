// CRC-32 as zip files use it (polynomial 0xEDB88320, reflected), fast and combinable.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fasttrain {

// Continues `crc` (0 at the start) over `size` bytes.
uint32_t crc32(uint32_t crc, const void *data, size_t size);

// Copies `size` bytes past the cache and returns the CRC-32 of what was copied, in one pass.
// `target` is aligned to 64 bytes; the ranges do not overlap.
uint32_t copy_crc32(void *target, const void *source, size_t size);

// The CRC-32 of A followed by B, from those of A and B and the size of B.
uint32_t combine_crc32(uint32_t crc_a, uint32_t crc_b, uint64_t size_b);

// "avx512", "pclmul" or "table": the code that runs on this CPU.
const char *crc32_path();

} // namespace fasttrain
