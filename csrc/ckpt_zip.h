// The layout of a checkpoint file: torch's zip container, byte for byte where readers depend on it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fasttrain {

// Where everything stands in a file with one pickle and some storages, known from their sizes.
//
// Records are stored uncompressed, each on a 64-byte boundary, in the order `data.pkl`,
// `.format_version`, `.storage_alignment`, `byteorder`, `data/0` ..., `version`,
// `.data/serialization_id`. Readers that compute offsets instead of looking them up rely on it.
class ZipLayout {
  public:
    ZipLayout(uint64_t pickle_size, const std::vector<uint64_t> &storage_sizes);

    uint64_t file_size() const { return file_size_; }
    uint64_t pickle_offset() const { return records_[0].data; }
    uint64_t storage_offset(size_t index) const { return records_[first_storage + index].data; }
    size_t num_storages() const { return num_storages_; }

    // A run of bytes between the large parts.
    struct Piece {
        uint64_t offset;
        std::string bytes;
    };

    // Everything but the pickle and the storages, once their checksums are known.
    std::vector<Piece> pieces(uint32_t pickle_crc, const std::vector<uint32_t> &storage_crcs) const;

  private:
    struct Record {
        std::string name;
        std::string content; // of the small records; the others' data is elsewhere
        uint64_t size;
        uint64_t header; // offset of the local header
        uint64_t data;   // offset of the data
    };

    static constexpr size_t first_storage = 4;

    void add(std::string name, std::string content, uint64_t size);
    std::string local_header(const Record &record) const;
    std::string descriptor(const Record &record, uint32_t crc) const;
    std::string directory_entry(const Record &record, uint32_t crc) const;
    std::string directory_end(uint64_t size, uint64_t offset) const;
    void finish_size();

    std::vector<Record> records_;
    size_t num_storages_;
    uint64_t cursor_ = 0;
    uint64_t file_size_ = 0;
};

} // namespace fasttrain
