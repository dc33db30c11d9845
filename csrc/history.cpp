// The parts of the ring that are off the hot path: growth, bulk copies, sums.
#include "history.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

namespace fasttrain {

namespace {

constexpr std::size_t kFirstChunk = 64;

// Sum that keeps the low-order bits a plain sum loses, so that long means do not drift.
class Compensated {
  public:
    void add(const double *x, std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) {
            const double next = sum_ + x[i];
            rest_ += std::fabs(sum_) >= std::fabs(x[i]) ? (sum_ - next) + x[i] : (x[i] - next) + sum_;
            sum_ = next;
        }
    }
    // With an infinity in the data the compensation is NaN and the plain sum is the answer.
    double value() const { return std::isfinite(sum_) ? sum_ + rest_ : sum_; }

  private:
    double sum_ = 0.0;
    double rest_ = 0.0;
};

} // namespace

Ring::Ring(std::size_t max_length) : max_length_(max_length) {
    if (max_length == 0)
        throw std::invalid_argument("max_length must be >= 1, got 0");
}

void Ring::grow(std::size_t needed) {
    const std::size_t capacity =
        std::min(max_length_, std::max({needed, kFirstChunk, 2 * capacity_}));
    for (Block *block : {&values_, &counts_}) {
        void *larger = std::realloc(block->get(), capacity * sizeof(double));
        if (larger == nullptr)
            throw std::bad_alloc();
        block->release();
        block->reset(static_cast<double *>(larger));
    }
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
    const std::size_t first = std::min(n, size_ - start);
    const auto total = [&](const double *x) {
        Compensated sum;
        sum.add(x + start, first);
        sum.add(x, n - first);
        return sum.value();
    };
    return {total(values_.get()), total(counts_.get())};
}

double Ring::last() const {
    const std::size_t newest = head_ == 0 ? size_ - 1 : head_ - 1;
    return values_[newest];
}

} // namespace fasttrain
