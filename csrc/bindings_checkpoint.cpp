// Python's door to the checkpoint container: addresses and sizes in, checksums out, no GIL held.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <system_error>

#include "ckpt_crc.h"
#include "ckpt_file.h"
#include "ckpt_zip.h"

namespace py = pybind11;
using namespace fasttrain;

namespace {

using Address = std::pair<uintptr_t, uint64_t>; // address, size

Span span_of(const Address &address) {
    return {reinterpret_cast<const void *>(address.first), address.second};
}

std::vector<Span> spans_of(const std::vector<Address> &addresses) {
    std::vector<Span> spans;
    for (const Address &address : addresses)
        spans.push_back(span_of(address));
    return spans;
}

Span span_of(const py::bytes &bytes) {
    char *data = nullptr;
    py::ssize_t size = 0;
    if (PyBytes_AsStringAndSize(bytes.ptr(), &data, &size) != 0)
        throw py::error_already_set();
    return {data, uint64_t(size)};
}

void expect_count(const char *what, size_t found, size_t expected) {
    if (found != expected)
        throw std::invalid_argument(std::string("expected ") + std::to_string(expected) + " " +
                                    what + ", got " + std::to_string(found));
}

// Failures of the file system come out as OSError with their errno.
template <class Call> auto translate(Call &&call) {
    try {
        py::gil_scoped_release release;
        return call();
    } catch (const std::system_error &error) {
        errno = error.code().value();
        PyErr_SetFromErrno(PyExc_OSError);
        throw py::error_already_set();
    }
}

} // namespace

void bind_checkpoint(py::module_ &module) {
    module.def("checkpoint_layout", [](uint64_t pickle_size, const std::vector<uint64_t> &sizes) {
        const ZipLayout layout(pickle_size, sizes);
        std::vector<uint64_t> offsets;
        for (size_t i = 0; i < sizes.size(); ++i)
            offsets.push_back(layout.storage_offset(i));
        return std::make_pair(layout.file_size(), offsets);
    });
    module.def("checkpoint_copy", [](const std::vector<Address> &sources,
                                     const std::vector<uintptr_t> &targets, int threads) {
        expect_count("targets", targets.size(), sources.size());
        std::vector<void *> pointers;
        for (uintptr_t target : targets) {
            if (target % 64 != 0)
                throw std::invalid_argument("targets must be aligned to 64 bytes");
            pointers.push_back(reinterpret_cast<void *>(target));
        }
        py::gil_scoped_release release;
        return copy_spans(spans_of(sources), pointers, threads);
    });
    module.def("checkpoint_write",
               [](int descriptor, const py::bytes &pickle, const std::vector<Address> &storages,
                  const std::vector<uint32_t> &crcs, int threads, bool gently) {
                   if (!crcs.empty())
                       expect_count("checksums", crcs.size(), storages.size());
                   const Span span = span_of(pickle);
                   translate([&] {
                       write_file(descriptor, span, spans_of(storages), crcs, {threads, gently});
                   });
               });
    module.def("checkpoint_write_around",
               [](int descriptor, const py::bytes &pickle, const std::vector<uint64_t> &sizes,
                  const std::vector<uint32_t> &crcs) {
                   expect_count("checksums", crcs.size(), sizes.size());
                   const Span span = span_of(pickle);
                   translate([&] { write_around(descriptor, span, sizes, crcs); });
               });
    module.def(
        "checkpoint_crc_ranges",
        [](int descriptor, const std::vector<std::pair<uint64_t, uint64_t>> &ranges, int threads) {
            std::vector<Range> list;
            for (const auto &range : ranges)
                list.push_back({range.first, range.second});
            return translate([&] { return crc_ranges(descriptor, list, threads); });
        });
    module.def("checkpoint_is_memory_folder", &is_memory_folder);
    module.def("checkpoint_map", [](int descriptor, uint64_t size) {
        return translate([&] { return reinterpret_cast<uintptr_t>(map_file(descriptor, size)); });
    });
    module.def("checkpoint_unmap", [](uintptr_t address, uint64_t size, bool gently) {
        py::gil_scoped_release release;
        unmap_file(reinterpret_cast<void *>(address), size, gently);
    });
    module.def("checkpoint_crc32", [](uintptr_t address, uint64_t size) {
        py::gil_scoped_release release;
        return crc32(0, reinterpret_cast<const void *>(address), size);
    });
    module.def("checkpoint_crc_path", [] { return std::string(crc32_path()); });
}
