#pragma once

// Where a torch tensor's data lies, read without a Python call. torch (2.10 and later) hands out a
// table of C functions by the DLPack exchange protocol; a field's order and type here are that
// protocol's. Only for bindings: everything needs the interpreter's lock.

#include <cstdint>

#include <Python.h>

namespace fasttrain {

// DLPack's DLTensor. `shape` and `strides` (in elements) live as long as the tensor.
struct DlTensor {
    void *data;
    int32_t device_type; // 1 is the CPU, 2 CUDA
    int32_t device_index;
    int32_t ndim;
    uint8_t code; // 0 int, 1 unsigned, 2 float, 4 bfloat, 6 bool
    uint8_t bits;
    uint16_t lanes;
    int64_t *shape;
    int64_t *strides;
    uint64_t byte_offset;

    bool on_cpu() const { return device_type == 1; }
    bool on_cuda() const { return device_type == 2; }

    const char *at() const { return static_cast<const char *>(data) + byte_offset; }

    // Whether what lies there may be the negative of the tensor. Only the imaginary part of a
    // conjugate is, and that lies in the second half of a complex number.
    bool may_be_negated() const {
        return code == 2 && reinterpret_cast<uintptr_t>(at()) % (2 * (bits / 8u)) != 0;
    }

    bool has_one_element() const {
        for (int32_t i = 0; i < ndim; ++i)
            if (shape[i] != 1)
                return false;
        return true;
    }
};

// The first fields of DLPack's DLPackExchangeAPI.
struct DlExchange {
    struct Header {
        uint32_t major, minor;
        Header *previous;
    } header;
    void *allocate, *from_object, *to_object;
    int (*view)(void *object, DlTensor *out); // 0, or -1 with a Python error set
    void *current_stream;
};

// The functions of a tensor type; null, without an error set, when it hands out none.
inline const DlExchange *exchange_of(PyObject *tensor_type) {
    PyObject *capsule = PyObject_GetAttrString(tensor_type, "__dlpack_c_exchange_api__");
    if (capsule == nullptr) {
        PyErr_Clear();
        return nullptr;
    }
    auto *found =
        static_cast<const DlExchange *>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
    Py_DECREF(capsule); // the table is static
    if (found == nullptr)
        PyErr_Clear();
    return found != nullptr && found->header.major == 1 ? found : nullptr;
}

} // namespace fasttrain
