// The parts of the ring that are off the hot path: growth, bulk copies, sums.
#include "history.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace fasttrain {

namespace {

constexpr std::size_t kFirstChunk = 64;
constexpr std::size_t kPairwiseBlock = 128;
constexpr std::size_t kOwnPages = std::size_t{1} << 18; // bytes from which pages of its own are due

// Two numbers that are added at once.
typedef double Pair __attribute__((vector_size(16)));

Pair load(const double *x) {
    Pair pair;
    std::memcpy(&pair, x, sizeof(pair));
    return pair;
}

// Pairwise sum: halves are summed on their own, so the error grows with log n and long means do
// not drift. Blocks, lanes and the order of the additions are numpy's: results are equal to its.
double pairwise_sum(const double *x, std::size_t n) {
    if (n < 8) {
        double sum = -0.0;
        for (std::size_t i = 0; i < n; ++i)
            sum += x[i];
        return sum;
    }
    if (n <= kPairwiseBlock) {
        Pair ab = load(x), cd = load(x + 2), ef = load(x + 4), gh = load(x + 6);
        std::size_t i = 8;
        for (; i + 8 <= n; i += 8) {
            ab += load(x + i);
            cd += load(x + i + 2);
            ef += load(x + i + 4);
            gh += load(x + i + 6);
        }
        double sum = ((ab[0] + ab[1]) + (cd[0] + cd[1])) + ((ef[0] + ef[1]) + (gh[0] + gh[1]));
        for (; i < n; ++i)
            sum += x[i];
        return sum;
    }
    const std::size_t half = n / 2 - (n / 2) % 8;
    return pairwise_sum(x, half) + pairwise_sum(x + half, n - half);
}

} // namespace

Column::~Column() {
#ifdef __linux__
    if (mapped_ > 0) {
        munmap(data_, mapped_);
        return;
    }
#endif
    std::free(data_);
}

void Column::grow(std::size_t size, std::size_t capacity) {
    const std::size_t bytes = capacity * sizeof(double);
#ifdef __linux__
    if (bytes >= kOwnPages) {
        void *pages = mapped_ > 0 ? mremap(data_, mapped_, bytes, MREMAP_MAYMOVE)
                                  : mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED)
            throw std::bad_alloc();
        if (mapped_ == 0) {
            if (size > 0)
                std::memcpy(pages, data_, size * sizeof(double));
            std::free(data_);
        }
        data_ = static_cast<double *>(pages);
        mapped_ = bytes;
        return;
    }
#else
    (void)size; // realloc keeps it
#endif
    void *larger = std::realloc(data_, bytes);
    if (larger == nullptr)
        throw std::bad_alloc();
    data_ = static_cast<double *>(larger);
}

Ring::Ring(std::size_t max_length) : max_length_(max_length) {
    if (max_length == 0)
        throw std::invalid_argument("max_length must be >= 1, got 0");
}

void Ring::grow(std::size_t needed) {
    const std::size_t capacity =
        std::min(max_length_, std::max({needed, kFirstChunk, 2 * capacity_}));
    for (Column *column : {&values_, &counts_})
        column->grow(size_, capacity);
    capacity_ = capacity;
}

void Ring::extend(const double *values, const double *counts, std::size_t n) {
    total_ += n;
    if (n > max_length_) {
        values += n - max_length_;
        counts += n - max_length_;
        n = max_length_;
    }
    while (n > 0) {
        const bool full = size_ == max_length_;
        const std::size_t at = full ? head_ : size_;
        const std::size_t run = std::min(n, max_length_ - at);
        if (!full && at + run > capacity_)
            grow(at + run);
        std::memcpy(values_.get() + at, values, run * sizeof(double));
        std::memcpy(counts_.get() + at, counts, run * sizeof(double));
        if (full)
            head_ = (head_ + run) % max_length_;
        else
            size_ += run;
        values += run;
        counts += run;
        n -= run;
    }
}

void Ring::copy_last(std::size_t n, double *values, double *counts) const {
    if (n == 0)
        return;
    const std::size_t start = (head_ + size_ - n) % size_;
    const std::size_t first = std::min(n, size_ - start);
    const auto copy = [&](const double *from, double *to) {
        if (to == nullptr)
            return;
        std::memcpy(to, from + start, first * sizeof(double));
        std::memcpy(to + first, from, (n - first) * sizeof(double));
    };
    copy(values_.get(), values);
    copy(counts_.get(), counts);
}

Ring::Sums Ring::sums(std::size_t n) const {
    if (n == 0)
        return {0.0, 0.0};
    const std::size_t start = (head_ + size_ - n) % size_;
    if (start + n <= size_)
        return {pairwise_sum(values_.get() + start, n), pairwise_sum(counts_.get() + start, n)};
    std::vector<double> values(n), counts(n);
    copy_last(n, values.data(), counts.data());
    return {pairwise_sum(values.data(), n), pairwise_sum(counts.data(), n)};
}

double Ring::median(std::size_t n) const {
    std::vector<double> values(n);
    copy_last(n, values.data(), nullptr);
    for (double value : values)
        if (std::isnan(value))
            return value;
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(n / 2);
    std::nth_element(values.begin(), middle, values.end());
    if (n % 2 == 1)
        return *middle;
    return (*std::max_element(values.begin(), middle) + *middle) / 2;
}

std::size_t Ring::num_recent(double span) const {
    const double bound = last_count() - span;
    std::size_t n = 1;
    while (n < size_ && counts_[index(n)] > bound)
        ++n;
    return n;
}

} // namespace fasttrain
