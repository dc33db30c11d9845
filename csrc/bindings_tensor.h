// What a step reads of torch's tensors, without a torch header: addresses, layouts, gradients.
#pragma once

#include "common.h"
#include "tensor_view.h"

#include <pybind11/pybind11.h>

#include <vector>

namespace fasttrain {

// A tensor as the passes see it.
struct TensorView {
    void *data = nullptr; // null also for an empty tensor
    int64_t numel = 0;
    Dtype dtype = Dtype::float32;
    bool known_dtype = false; // one of Dtype's
    bool contiguous = false;
    bool on_cpu = true;
    std::vector<int64_t> strides; // when not contiguous: of dimensions with more than one element

    bool same_layout(const TensorView &other) const {
        return contiguous == other.contiguous && strides == other.strides;
    }
};

// The ways into tensors, looked up once: torch's DLPack functions where it has them, which cost
// nanoseconds, else its Python methods.
class TensorAccess {
  public:
    // `increment_version` is torch's; without `exchange` the methods are used.
    TensorAccess(pybind11::object tensor_type, pybind11::object increment_version, bool exchange);

    // Raises what torch raises for a tensor without strided memory.
    void read(PyObject *tensor, TensorView &view) const;

    pybind11::object grad_of(PyObject *tensor) const;

    // Sets `grad` of all of them to None.
    void drop_gradients(const pybind11::list &tensors) const;

    void increment_version(const pybind11::object &tensors) const { increment_version_(tensors); }

    bool exchanges() const { return api_ != nullptr; }

  private:
    void read_by_methods(PyObject *tensor, TensorView &view) const;

    // Whether nobody can have overridden the attribute; subclasses take the way through Python.
    bool has_plain_grad(PyObject *tensor) const {
        return grad_field_ &&
               (Py_TYPE(tensor) == plain_types_[0] || Py_TYPE(tensor) == plain_types_[1]);
    }

    pybind11::object data_ptr_, is_contiguous_, stride_, size_, numel_, increment_version_;
    pybind11::object grad_; // the type's attribute, and what it does if it is implemented in C
    const PyGetSetDef *grad_field_ = nullptr;
    pybind11::object parameter_type_;
    PyTypeObject *plain_types_[2];
    pybind11::str grad_name_, dtype_name_, is_cpu_name_;
    std::vector<std::pair<pybind11::object, Dtype>> dtypes_;
    const DlExchange *api_ = nullptr;
};

} // namespace fasttrain
