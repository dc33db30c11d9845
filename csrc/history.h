// One scalar series: a bounded ring of (value, count) pairs in float64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace fasttrain {

// The storage grows in chunks (each as large as what is there already) up to max_length pairs and
// is contiguous, so that the operating system grows it in place by remapping pages; from there on
// the oldest pair is overwritten.
class Ring {
  public:
    struct Sums {
        double values;
        double counts;
    };

    explicit Ring(std::size_t max_length);

    void append(double value, double count) {
        if (size_ < max_length_) {
            if (size_ == capacity_)
                grow(size_ + 1);
            values_[size_] = value;
            counts_[size_] = count;
            ++size_;
        } else {
            values_[head_] = value;
            counts_[head_] = count;
            head_ = head_ + 1 == max_length_ ? 0 : head_ + 1;
        }
        ++total_;
    }
    void extend(const double *values, const double *counts, std::size_t n);

    // Copies the last n <= size() pairs, oldest first. Either target may be null.
    void copy_last(std::size_t n, double *values, double *counts) const;
    // Sums of the last n <= size() values and counts, pairwise.
    Sums sums(std::size_t n) const;
    double last() const; // size() must not be 0

    std::size_t size() const { return size_; }
    std::size_t max_length() const { return max_length_; }
    std::uint64_t total() const { return total_; }
    void set_total(std::uint64_t total) { total_ = total; }

  private:
    struct Free {
        void operator()(double *p) const { std::free(p); }
    };
    using Block = std::unique_ptr<double[], Free>;

    void grow(std::size_t needed);

    std::size_t max_length_;
    std::size_t capacity_ = 0;
    std::size_t size_ = 0;
    std::size_t head_ = 0; // index of the oldest pair once the ring is full
    std::uint64_t total_ = 0;
    Block values_;
    Block counts_;
};

} // namespace fasttrain
