// One scalar series: a bounded ring of (value, count) pairs in float64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace fasttrain {

// Numbers in contiguous memory that grows. A large one has pages of its own where the operating
// system can remap them: growing copies nothing, leaves no hole in the heap, and takes up only what
// was written.
class Column {
  public:
    Column() = default;
    Column(Column &&other) noexcept
        : data_(std::exchange(other.data_, nullptr)), mapped_(std::exchange(other.mapped_, 0)) {}
    Column &operator=(Column &&other) noexcept {
        std::swap(data_, other.data_);
        std::swap(mapped_, other.mapped_);
        return *this;
    }
    ~Column();

    // Make room for `capacity` numbers, of which the first `size` are kept. Throws std::bad_alloc.
    void grow(std::size_t size, std::size_t capacity);
    double *get() const { return data_; }
    double &operator[](std::size_t i) const { return data_[i]; }

  private:
    double *data_ = nullptr;
    std::size_t mapped_ = 0; // bytes of its own pages; 0 when it is in the heap
};

// The storage grows in chunks (each as large as what is there already) up to max_length pairs; from
// there on the oldest pair is overwritten.
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
    double last() const { return values_[index(0)]; }       // size() must not be 0
    double last_count() const { return counts_[index(0)]; } // size() must not be 0
    // Median of the last n values, 1 <= n <= size(); NaN when one of them is.
    double median(std::size_t n) const;
    // How many of the last values have a count above the last one's less `span`; size() not 0.
    std::size_t num_recent(double span) const;

    std::size_t size() const { return size_; }
    std::size_t max_length() const { return max_length_; }
    std::uint64_t total() const { return total_; }
    void set_total(std::uint64_t total) { total_ = total; }

  private:
    void grow(std::size_t needed);
    // Index of the pair that lies `age` pairs before the newest one.
    std::size_t index(std::size_t age) const {
        const std::size_t newest = head_ == 0 ? size_ - 1 : head_ - 1;
        return age <= newest ? newest - age : newest + size_ - age;
    }

    std::size_t max_length_;
    std::size_t capacity_ = 0;
    std::size_t size_ = 0;
    std::size_t head_ = 0; // index of the oldest pair once the ring is full
    std::uint64_t total_ = 0;
    Column values_;
    Column counts_;
};

} // namespace fasttrain
