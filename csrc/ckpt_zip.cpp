// The bytes of a stored-only zip file with 64-byte aligned records and zip64 where sizes need it.
#include "ckpt_zip.h"

#include <cstring>

#include "ckpt_crc.h"

namespace fasttrain {
namespace {

constexpr uint64_t alignment = 64;
constexpr uint64_t limit32 = 0xffffffffu; // sizes and offsets from here on need zip64
constexpr const char *root = "archive/";

// Appends little-endian fields.
class Fields {
  public:
    Fields &u16(uint64_t value) { return put(value, 2); }
    Fields &u32(uint64_t value) { return put(value, 4); }
    Fields &u64(uint64_t value) { return put(value, 8); }
    Fields &text(const std::string &value) {
        bytes_ += value;
        return *this;
    }
    std::string take() { return std::move(bytes_); }

  private:
    Fields &put(uint64_t value, int width) {
        for (int i = 0; i < width; ++i)
            bytes_.push_back(char(value >> (8 * i)));
        return *this;
    }
    std::string bytes_;
};

bool is_large(uint64_t value) { return value >= limit32; }
uint64_t clamp32(uint64_t value) { return is_large(value) ? limit32 : value; }

// The extra field with the 64-bit values of those that do not fit; empty when all fit.
std::string zip64_field(uint64_t size, uint64_t header) {
    if (!is_large(size) && !is_large(header))
        return {};
    Fields field;
    field.u16(1).u16((is_large(size) ? 16 : 0) + (is_large(header) ? 8 : 0));
    if (is_large(size))
        field.u64(size).u64(size);
    if (is_large(header))
        field.u64(header);
    return field.take();
}

uint64_t descriptor_size(uint64_t size, uint64_t header) {
    if (size == 0)
        return 0;
    return is_large(size) || is_large(header) ? 24 : 16;
}

// Bit 11: names are UTF-8; bit 3: the checksum follows the data.
uint64_t flags_of(uint64_t size) { return size == 0 ? 0x0800 : 0x0808; }

std::string decimal20(uint64_t value) {
    std::string digits(20, '0');
    for (int i = 19; i >= 0; --i, value /= 10)
        digits[size_t(i)] = char('0' + value % 10);
    return digits;
}

} // namespace

ZipLayout::ZipLayout(uint64_t pickle_size, const std::vector<uint64_t> &storage_sizes)
    : num_storages_(storage_sizes.size()) {
    records_.reserve(storage_sizes.size() + 6);
    const uint16_t one = 1;
    uint8_t first_byte;
    memcpy(&first_byte, &one, 1);
    add("data.pkl", {}, pickle_size);
    add(".format_version", "1", 1);
    add(".storage_alignment", std::to_string(alignment), 2);
    const std::string order = first_byte ? "little" : "big";
    add("byteorder", order, order.size());
    for (size_t i = 0; i < storage_sizes.size(); ++i)
        add("data/" + std::to_string(i), {}, storage_sizes[i]);
    add("version", "3\n", 2);
    add(".data/serialization_id", std::string(40, '0'), 40);
    finish_size();
}

void ZipLayout::add(std::string name, std::string content, uint64_t size) {
    Record record{root + std::move(name), std::move(content), size, cursor_, 0};
    // The padding's own four bytes of tag and length are always there.
    const uint64_t start =
        cursor_ + 30 + record.name.size() + zip64_field(size, cursor_).size() + 4;
    record.data = (start + alignment - 1) / alignment * alignment;
    cursor_ = record.data + size + descriptor_size(size, record.header);
    records_.push_back(std::move(record));
}

void ZipLayout::finish_size() {
    uint64_t directory = 0;
    for (const Record &record : records_)
        directory += 46 + record.name.size() + zip64_field(record.size, record.header).size();
    file_size_ = cursor_ + directory + directory_end(directory, cursor_).size();
}

std::string ZipLayout::local_header(const Record &record) const {
    const std::string large = zip64_field(record.size, record.header);
    const uint64_t start = record.header + 30 + record.name.size() + large.size() + 4;
    const uint64_t padding = record.data - start;
    Fields fields;
    fields.u32(0x04034b50).u16(0).u16(flags_of(record.size)).u16(0).u16(0).u16(0);
    fields.u32(0).u32(0).u32(0).u16(record.name.size()).u16(large.size() + 4 + padding);
    fields.text(record.name).text(large).text("FB").u16(padding);
    return fields.text(std::string(padding, 'Z')).take();
}

std::string ZipLayout::descriptor(const Record &record, uint32_t crc) const {
    Fields fields;
    switch (descriptor_size(record.size, record.header)) {
    case 16:
        fields.u32(0x08074b50).u32(crc).u32(record.size).u32(record.size);
        break;
    case 24:
        fields.u32(0x08074b50).u32(crc).u64(record.size).u64(record.size);
        break;
    }
    return fields.take();
}

std::string ZipLayout::directory_entry(const Record &record, uint32_t crc) const {
    const std::string large = zip64_field(record.size, record.header);
    Fields fields;
    fields.u32(0x02014b50).u16(0).u16(0).u16(flags_of(record.size)).u16(0).u16(0).u16(0).u32(crc);
    fields.u32(clamp32(record.size)).u32(clamp32(record.size)).u16(record.name.size());
    fields.u16(large.size()).u16(0).u16(0).u16(0).u32(0).u32(clamp32(record.header));
    return fields.text(record.name).text(large).take();
}

std::string ZipLayout::directory_end(uint64_t size, uint64_t offset) const {
    const uint64_t count = records_.size();
    const uint64_t count16 = count < 0xffff ? count : 0xffff;
    Fields fields;
    fields.u32(0x06064b50).u64(44).u16(0x031e).u16(45).u32(0).u32(0);
    fields.u64(count).u64(count).u64(size).u64(offset);
    fields.u32(0x07064b50).u32(0).u64(offset + size).u32(1);
    fields.u32(0x06054b50).u16(0).u16(0).u16(count16).u16(count16);
    return fields.u32(clamp32(size)).u32(clamp32(offset)).u16(0).take();
}

std::vector<ZipLayout::Piece> ZipLayout::pieces(uint32_t pickle_crc,
                                                const std::vector<uint32_t> &storage_crcs) const {
    std::vector<Piece> pieces{{0, {}}};
    std::string directory, open; // `open`: the bytes since the last large part
    uint32_t all = pickle_crc;
    uint64_t names = 0;
    for (size_t i = 0; i < records_.size(); ++i) {
        Record record = records_[i];
        uint32_t crc = pickle_crc;
        if (i >= first_storage && i < first_storage + num_storages_)
            crc = storage_crcs[i - first_storage];
        if (i + 1 == records_.size()) // an identity of the file's content
            record.content = decimal20(names) + decimal20(all);
        if (!record.content.empty())
            crc = crc32(0, record.content.data(), record.content.size());
        names = names * 1099511628211u + record.size + 1;
        all = uint32_t(combine_crc32(all, crc, record.size));
        open += local_header(record);
        open += record.content;
        if (record.content.empty() && record.size > 0) {
            pieces.back().bytes = std::move(open);
            open.clear();
            pieces.push_back({record.data + record.size, {}});
        }
        open += descriptor(record, crc);
        directory += directory_entry(record, crc);
    }
    open += directory;
    open += directory_end(directory.size(), cursor_);
    pieces.back().bytes = std::move(open);
    return pieces;
}

} // namespace fasttrain
