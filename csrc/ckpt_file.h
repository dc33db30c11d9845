// Moving a checkpoint's bytes: into a snapshot and into a file, checksums taken on the way.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fasttrain {

struct Span {
    const void *data;
    uint64_t size;
};

// How work that the caller waits for is done.
struct Crew {
    int threads = 1;
    bool gently = false; // by threads that give way to all others, or nearly
};

// Copies each span to its target (aligned to 64 bytes) and returns the checksums. The threads are
// those of the caller's parallel regions; the caller waits.
std::vector<uint32_t> copy_spans(const std::vector<Span> &spans, const std::vector<void *> &targets,
                                 int threads);

// Writes a whole checkpoint file to an empty descriptor, in own threads.
//
// `crcs` are the storages' checksums, or empty: then they are taken while writing. The storages
// must not change meanwhile. Throws std::system_error with the errno of the call that failed.
void write_file(int descriptor, const Span &pickle, const std::vector<Span> &storages,
                std::vector<uint32_t> crcs, Crew crew);

// Writes all but the storages, which stand in the file already (it is mapped).
void write_around(int descriptor, const Span &pickle, const std::vector<uint64_t> &sizes,
                  const std::vector<uint32_t> &crcs);

// Whether a folder's files are memory (tmpfs): then they may be mapped and copied into.
bool is_memory_folder(const std::string &path);

// Maps the first `size` bytes of a file, gently, every page present; throws std::system_error.
void *map_file(int descriptor, uint64_t size);
void unmap_file(void *address, uint64_t size, bool gently);

struct Range {
    uint64_t offset;
    uint64_t size;
};

// The checksums of ranges of a file, read in own threads.
std::vector<uint32_t> crc_ranges(int descriptor, const std::vector<Range> &ranges, int threads);

} // namespace fasttrain
