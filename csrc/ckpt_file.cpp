// Copies, writes and checks in blocks of a megabyte that several threads take in turn.
#include "ckpt_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "ckpt_crc.h"
#include "ckpt_zip.h"
#include "parallel.h"

namespace fasttrain {
namespace {

constexpr uint64_t block_size = 1 << 20;
constexpr uint64_t flush_size = 8 << 20; // written data is handed to the disk in such portions
constexpr int niceness = 19;             // of threads that give way
constexpr double gentle_rest = 49;       // see run_threads
constexpr std::chrono::seconds patience{60};

// One block of one part.
struct Block {
    size_t part;
    uint64_t offset; // within the part
    uint64_t size;
};

std::vector<Block> cut(const std::vector<uint64_t> &sizes) {
    std::vector<Block> blocks;
    for (size_t part = 0; part < sizes.size(); ++part)
        for (uint64_t offset = 0; offset < sizes[part]; offset += block_size)
            blocks.push_back({part, offset, std::min(block_size, sizes[part] - offset)});
    return blocks;
}

std::vector<uint32_t> combine(const std::vector<Block> &blocks, const std::vector<uint32_t> &crcs,
                              size_t num_parts) {
    std::vector<uint32_t> parts(num_parts, 0);
    for (size_t i = 0; i < blocks.size(); ++i) {
        uint32_t &part = parts[blocks[i].part];
        part = blocks[i].offset == 0 ? crcs[i] : combine_crc32(part, crcs[i], blocks[i].size);
    }
    return parts;
}

// Makes the calling thread give way to all others. It cannot be taken back without privileges, and
// a thread that holds a lock of the interpreter must not: others would wait for it in vain.
void give_way() { setpriority(PRIO_PROCESS, id_t(syscall(SYS_gettid)), niceness); }

std::chrono::nanoseconds processor_time() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

// Calls `task(i)` for each i below `count` in threads of its own; the first exception is rethrown.
//
// Threads that give way may get next to nothing for minutes where others keep every core busy. The
// caller then sees to it that the work goes on: it takes part for a fiftieth of its time, and for
// more and more of it until all patience is gone, since nobody is served by a file that never ends.
template <class Task> void run_threads(size_t count, Crew crew, Task &&task) {
    std::atomic<size_t> next{0};
    std::exception_ptr error;
    std::mutex guard;
    const auto begin = std::chrono::steady_clock::now();
    const auto work = [&](double rest) { // for each time at work so many at rest
        try {
            for (size_t i; (i = next.fetch_add(1)) < count;) {
                const auto start = processor_time();
                task(i);
                const std::chrono::duration<double> elapsed =
                    std::chrono::steady_clock::now() - begin;
                if (rest > 0 && elapsed < patience && next.load() < count)
                    std::this_thread::sleep_for(rest * (1 - elapsed / patience) *
                                                (processor_time() - start));
            }
        } catch (...) {
            next.store(count);
            const std::lock_guard<std::mutex> lock(guard);
            if (!error)
                error = std::current_exception();
        }
    };
    const auto help = [&] {
        if (crew.gently)
            give_way();
        work(0);
    };
    std::vector<std::thread> helpers;
    try {
        for (int k = crew.gently ? 0 : 1; k < crew.threads && size_t(k) < count; ++k)
            helpers.emplace_back(help);
    } catch (const std::system_error &) { // no more threads to be had: those there are do it all
    }
    work(crew.gently ? gentle_rest : 0);
    for (std::thread &helper : helpers)
        helper.join();
    if (error)
        std::rethrow_exception(error);
}

void write_all(int descriptor, const void *data, uint64_t size, uint64_t offset) {
    const char *bytes = static_cast<const char *>(data);
    while (size > 0) {
        const ssize_t written = pwrite(descriptor, bytes, size, off_t(offset));
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            throw std::system_error(written < 0 ? errno : ENOSPC, std::generic_category(), "write");
        bytes += written;
        offset += uint64_t(written);
        size -= uint64_t(written);
    }
}

void read_all(int descriptor, void *data, uint64_t size, uint64_t offset) {
    char *bytes = static_cast<char *>(data);
    while (size > 0) {
        const ssize_t got = pread(descriptor, bytes, size, off_t(offset));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            throw std::system_error(got < 0 ? errno : EIO, std::generic_category(), "read");
        bytes += got;
        offset += uint64_t(got);
        size -= uint64_t(got);
    }
}

// Threads worth starting for so many bytes.
int useful_threads(int threads, const std::vector<uint64_t> &sizes) {
    uint64_t total = 0;
    for (uint64_t size : sizes)
        total += size;
    return int(std::min<uint64_t>(uint64_t(threads), 1 + total / (4 * block_size)));
}

// Lets the disk begin with what is written; only speed depends on it.
void start_writeback(int descriptor, uint64_t offset, uint64_t size) {
#ifdef SYNC_FILE_RANGE_WRITE
    sync_file_range(descriptor, off64_t(offset), off64_t(size), SYNC_FILE_RANGE_WRITE);
#else
    (void)descriptor, (void)offset, (void)size;
#endif
}

std::vector<uint64_t> sizes_of(const std::vector<Span> &spans) {
    std::vector<uint64_t> sizes;
    for (const Span &span : spans)
        sizes.push_back(span.size);
    return sizes;
}

void write_pieces(int descriptor, const ZipLayout &layout, const Span &pickle,
                  const std::vector<uint32_t> &crcs) {
    write_all(descriptor, pickle.data, pickle.size, layout.pickle_offset());
    const uint32_t pickle_crc = crc32(0, pickle.data, pickle.size);
    for (const ZipLayout::Piece &piece : layout.pieces(pickle_crc, crcs))
        write_all(descriptor, piece.bytes.data(), piece.bytes.size(), piece.offset);
}

const char *at(const void *data, uint64_t offset) {
    return static_cast<const char *>(data) + offset;
}

} // namespace

std::vector<uint32_t> copy_spans(const std::vector<Span> &spans, const std::vector<void *> &targets,
                                 int threads) {
    const std::vector<uint64_t> sizes = sizes_of(spans);
    const std::vector<Block> blocks = cut(sizes);
    std::vector<uint32_t> crcs(blocks.size());
    threads = useful_threads(threads, sizes);
    parallel_tasks(int64_t(blocks.size()), threads, [&](int64_t i) {
        const Block &block = blocks[size_t(i)];
        char *target = static_cast<char *>(targets[block.part]) + block.offset;
        crcs[size_t(i)] = copy_crc32(target, at(spans[block.part].data, block.offset), block.size);
    });
    return combine(blocks, crcs, spans.size());
}

void write_file(int descriptor, const Span &pickle, const std::vector<Span> &storages,
                std::vector<uint32_t> crcs, Crew crew) {
    const std::vector<uint64_t> sizes = sizes_of(storages);
    const ZipLayout layout(pickle.size, sizes);
    const std::vector<Block> blocks = cut(sizes);
    const bool takes_crcs = crcs.empty();
    std::vector<uint32_t> block_crcs(takes_crcs ? blocks.size() : 0);
    crew.threads = useful_threads(crew.threads, sizes);
    run_threads(blocks.size(), crew, [&](size_t i) {
        const Block &block = blocks[i];
        const char *data = at(storages[block.part].data, block.offset);
        if (takes_crcs)
            block_crcs[i] = crc32(0, data, block.size);
        const uint64_t offset = layout.storage_offset(block.part) + block.offset;
        write_all(descriptor, data, block.size, offset);
        if (offset / flush_size != (offset + block.size) / flush_size)
            start_writeback(descriptor, offset / flush_size * flush_size, flush_size);
    });
    if (takes_crcs)
        crcs = combine(blocks, block_crcs, storages.size());
    write_pieces(descriptor, layout, pickle, crcs);
}

void write_around(int descriptor, const Span &pickle, const std::vector<uint64_t> &sizes,
                  const std::vector<uint32_t> &crcs) {
    const ZipLayout layout(pickle.size, sizes);
    write_pieces(descriptor, layout, pickle, crcs);
    if (ftruncate(descriptor, off_t(layout.file_size())) != 0)
        throw std::system_error(errno, std::generic_category(), "truncate");
}

bool is_memory_folder(const std::string &path) {
    struct statfs found;
    constexpr unsigned tmpfs_magic = 0x01021994u;
    return statfs(path.c_str(), &found) == 0 && unsigned(found.f_type) == tmpfs_magic;
}

void *map_file(int descriptor, uint64_t size) {
    void *address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (address == MAP_FAILED)
        throw std::system_error(errno, std::generic_category(), "map");
    const std::vector<Block> blocks = cut({size});
    try {
        // By portions, for the process's mappings are locked while one is made present. Each is
        // allocated first: a full disk is an error here, no signal later.
        run_threads(blocks.size(), {1, true}, [&](size_t i) {
            const Block &block = blocks[i];
            const int error = posix_fallocate(descriptor, off_t(block.offset), off_t(block.size));
            if (error != 0)
                throw std::system_error(error, std::generic_category(), "allocate");
#ifdef MADV_POPULATE_WRITE // where the kernel does not know it, the copy makes pages present
            madvise(static_cast<char *>(address) + block.offset, block.size, MADV_POPULATE_WRITE);
#endif
        });
    } catch (...) {
        munmap(address, size);
        throw;
    }
    return address;
}

void unmap_file(void *address, uint64_t size, bool gently) {
    const std::vector<Block> blocks = cut({size});
    run_threads(blocks.size(), {1, gently}, [&](size_t i) {
        munmap(static_cast<char *>(address) + blocks[i].offset, blocks[i].size);
    });
}

std::vector<uint32_t> crc_ranges(int descriptor, const std::vector<Range> &ranges, int threads) {
    std::vector<uint64_t> sizes;
    for (const Range &range : ranges)
        sizes.push_back(range.size);
    const std::vector<Block> blocks = cut(sizes);
    std::vector<uint32_t> crcs(blocks.size());
    run_threads(blocks.size(), {useful_threads(threads, sizes)}, [&](size_t i) {
        thread_local std::unique_ptr<char[]> buffer(new char[block_size]);
        const Block &block = blocks[i];
        read_all(descriptor, buffer.get(), block.size, ranges[block.part].offset + block.offset);
        crcs[i] = crc32(0, buffer.get(), block.size);
    });
    return combine(blocks, crcs, ranges.size());
}

} // namespace fasttrain
