// CRC-32 by carry-less multiplication: 64 or 256 bytes are folded at a time, the rest by table.
#include "ckpt_crc.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
// gcc 12 takes its own headers' deliberately undefined registers for mistakes.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#define FT_CRC_X86 1
#endif

namespace fasttrain {
namespace {

constexpr uint32_t polynomial = 0xEDB88320u;

// Polynomials over GF(2) modulo the CRC's, bit-reflected: the highest bit of a word is x^0.
constexpr uint32_t times_x(uint32_t a) { return (a >> 1) ^ ((a & 1) ? polynomial : 0); }

constexpr uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
        if (a & bit)
            product ^= b;
        b = times_x(b);
    }
    return product;
}

constexpr uint32_t power_of_x(uint64_t exponent) {
    uint32_t result = 0x80000000u, square = 0x40000000u;
    for (; exponent != 0; exponent >>= 1, square = multiply(square, square))
        if (exponent & 1)
            result = multiply(result, square);
    return result;
}

// Slicing by 8: table[k][byte] is the CRC of that byte followed by k zero bytes.
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
    Tables tables{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; ++bit)
            value = times_x(value);
        tables[0][byte] = value;
    }
    for (int k = 1; k < 8; ++k)
        for (uint32_t byte = 0; byte < 256; ++byte)
            tables[k][byte] = (tables[k - 1][byte] >> 8) ^ tables[0][tables[k - 1][byte] & 0xff];
    return tables;
}

constexpr Tables tables = make_tables();

// `state` is the inverted CRC, as in all kernels below.
uint32_t fold_table(uint32_t state, const uint8_t *data, size_t size) {
    for (; size >= 8; data += 8, size -= 8) {
        uint32_t low, high;
        memcpy(&low, data, 4);
        memcpy(&high, data + 4, 4);
        low ^= state;
        state = tables[7][low & 0xff] ^ tables[6][(low >> 8) & 0xff] ^
                tables[5][(low >> 16) & 0xff] ^ tables[4][low >> 24] ^ tables[3][high & 0xff] ^
                tables[2][(high >> 8) & 0xff] ^ tables[1][(high >> 16) & 0xff] ^
                tables[0][high >> 24];
    }
    for (; size > 0; ++data, --size)
        state = (state >> 8) ^ tables[0][(state ^ *data) & 0xff];
    return state;
}

#ifdef FT_CRC_X86

// The two factors that move a 128-bit block forward over `bits`, as the carry-less multiply
// instruction takes reflected operands (33 bits).
constexpr uint64_t factor_low(uint64_t bits) { return uint64_t(power_of_x(bits + 32)) << 1; }
constexpr uint64_t factor_high(uint64_t bits) { return uint64_t(power_of_x(bits - 32)) << 1; }

#define FT_PCLMUL __attribute__((target("pclmul,sse4.1")))
#define FT_AVX512 __attribute__((target("pclmul,sse4.1,avx512f,avx512vl,vpclmulqdq")))

FT_PCLMUL inline __m128i fold(__m128i block, __m128i factors, __m128i next) {
    const __m128i low = _mm_clmulepi64_si128(block, factors, 0x00);
    const __m128i high = _mm_clmulepi64_si128(block, factors, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

// The state after the 16 bytes that `block` stands for.
FT_PCLMUL inline uint32_t finish(__m128i block) {
    alignas(16) uint8_t bytes[16];
    _mm_store_si128(reinterpret_cast<__m128i *>(bytes), block);
    return fold_table(0, bytes, sizeof bytes);
}

template <bool copies>
FT_PCLMUL uint32_t fold_pclmul(uint32_t state, uint8_t *target, const uint8_t *data, size_t size) {
    const auto take = [&](size_t at) FT_PCLMUL {
        const __m128i block = _mm_loadu_si128(reinterpret_cast<const __m128i *>(data + at));
        if constexpr (copies)
            _mm_stream_si128(reinterpret_cast<__m128i *>(target + at), block);
        return block;
    };
    const __m128i by_512 = _mm_set_epi64x(factor_high(512), factor_low(512));
    const __m128i by_128 = _mm_set_epi64x(factor_high(128), factor_low(128));
    __m128i a = _mm_xor_si128(take(0), _mm_cvtsi32_si128(int(state)));
    __m128i b = take(16), c = take(32), d = take(48);
    size_t at = 64;
    for (; at + 64 <= size; at += 64) {
        a = fold(a, by_512, take(at));
        b = fold(b, by_512, take(at + 16));
        c = fold(c, by_512, take(at + 32));
        d = fold(d, by_512, take(at + 48));
    }
    const __m128i block = fold(fold(fold(a, by_128, b), by_128, c), by_128, d);
    if constexpr (copies) {
        memcpy(target + at, data + at, size - at);
        _mm_sfence();
    }
    return fold_table(finish(block), data + at, size - at);
}

FT_AVX512 inline __m512i fold(__m512i block, __m512i factors, __m512i next) {
    const __m512i low = _mm512_clmulepi64_epi128(block, factors, 0x00);
    const __m512i high = _mm512_clmulepi64_epi128(block, factors, 0x11);
    return _mm512_ternarylogic_epi64(low, high, next, 0x96); // low ^ high ^ next
}

FT_AVX512 inline __m512i factors_of(uint64_t low, uint64_t high) {
    return _mm512_broadcast_i32x4(_mm_set_epi64x(int64_t(high), int64_t(low)));
}

template <bool copies>
FT_AVX512 uint32_t fold_avx512(uint32_t state, uint8_t *target, const uint8_t *data, size_t size) {
    const auto take = [&](size_t at) FT_AVX512 {
        const __m512i block = _mm512_loadu_si512(data + at);
        if constexpr (copies)
            _mm512_stream_si512(reinterpret_cast<__m512i *>(target + at), block);
        return block;
    };
    const __m512i by_2048 = factors_of(factor_low(2048), factor_high(2048));
    const __m512i by_512 = factors_of(factor_low(512), factor_high(512));
    const __m512i start = _mm512_zextsi128_si512(_mm_cvtsi32_si128(int(state)));
    __m512i a = _mm512_xor_si512(take(0), start);
    __m512i b = take(64), c = take(128), d = take(192);
    size_t at = 256;
    for (; at + 256 <= size; at += 256) {
        if constexpr (copies) // the processor's own prefetching is slower beside streamed stores
            for (size_t line = 0; line < 256; line += 64)
                _mm_prefetch(reinterpret_cast<const char *>(data + at + 2048 + line), _MM_HINT_NTA);
        a = fold(a, by_2048, take(at));
        b = fold(b, by_2048, take(at + 64));
        c = fold(c, by_2048, take(at + 128));
        d = fold(d, by_2048, take(at + 192));
    }
    const __m512i wide = fold(fold(fold(a, by_512, b), by_512, c), by_512, d);
    const __m128i by_128 = _mm_set_epi64x(factor_high(128), factor_low(128));
    __m128i block = _mm512_castsi512_si128(wide);
    block = fold(block, by_128, _mm512_extracti32x4_epi32(wide, 1));
    block = fold(block, by_128, _mm512_extracti32x4_epi32(wide, 2));
    block = fold(block, by_128, _mm512_extracti32x4_epi32(wide, 3));
    if constexpr (copies) {
        memcpy(target + at, data + at, size - at);
        _mm_sfence();
    }
    return fold_table(finish(block), data + at, size - at);
}

#endif // FT_CRC_X86

enum class Path { table, pclmul, avx512 };

Path find_path() {
#ifdef FT_CRC_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("vpclmulqdq"))
        return Path::avx512;
    if (__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1"))
        return Path::pclmul;
#endif
    return Path::table;
}

const Path path = find_path();
constexpr size_t min_folded = 256; // shorter data goes by table

template <bool copies> uint32_t run(uint32_t crc, void *target, const void *data, size_t size) {
    const uint8_t *bytes = static_cast<const uint8_t *>(data);
    uint8_t *out = static_cast<uint8_t *>(target);
#ifdef FT_CRC_X86
    if (size >= min_folded && path == Path::avx512)
        return ~fold_avx512<copies>(~crc, out, bytes, size);
    if (size >= min_folded && path == Path::pclmul)
        return ~fold_pclmul<copies>(~crc, out, bytes, size);
#endif
    if constexpr (copies)
        memcpy(out, bytes, size);
    return ~fold_table(~crc, bytes, size);
}

} // namespace

uint32_t crc32(uint32_t crc, const void *data, size_t size) {
    return run<false>(crc, nullptr, data, size);
}

uint32_t copy_crc32(void *target, const void *source, size_t size) {
    return run<true>(0, target, source, size);
}

uint32_t combine_crc32(uint32_t crc_a, uint32_t crc_b, uint64_t size_b) {
    return multiply(power_of_x(8 * size_b), crc_a) ^ crc_b;
}

const char *crc32_path() {
    switch (path) {
    case Path::avx512:
        return "avx512";
    case Path::pclmul:
        return "pclmul";
    default:
        return "table";
    }
}

} // namespace fasttrain
