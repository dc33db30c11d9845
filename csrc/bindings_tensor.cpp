#include "bindings_tensor.h"

#include <pybind11/stl.h>

namespace py = pybind11;

namespace fasttrain {
namespace {

py::object call_one(const py::object &method, PyObject *argument) {
    PyObject *const arguments[] = {argument};
    auto result =
        py::reinterpret_steal<py::object>(PyObject_Vectorcall(method.ptr(), arguments, 1, nullptr));
    if (!result)
        throw py::error_already_set();
    return result;
}

void find_dtype(const DlTensor &tensor, TensorView &view) {
    constexpr uint8_t kFloat = 2, kBfloat = 4;
    const int code = tensor.code, bits = tensor.bits;
    view.known_dtype = tensor.lanes == 1 && ((code == kFloat && (bits == 32 || bits == 16)) ||
                                             (code == kBfloat && bits == 16));
    view.dtype = code == kBfloat ? Dtype::bfloat16 : bits == 16 ? Dtype::float16 : Dtype::float32;
}

void find_layout(const DlTensor &tensor, TensorView &view) {
    view.numel = 1;
    for (int32_t i = 0; i < tensor.ndim; ++i)
        view.numel *= tensor.shape[i];
    view.contiguous = true;
    view.strides.clear();
    if (!tensor.strides || view.numel == 0)
        return;
    int64_t expected = 1;
    for (int32_t i = tensor.ndim; i-- > 0;)
        if (tensor.shape[i] != 1) {
            view.contiguous &= tensor.strides[i] == expected;
            expected *= tensor.shape[i];
        }
    if (!view.contiguous)
        for (int32_t i = 0; i < tensor.ndim; ++i)
            if (tensor.shape[i] != 1)
                view.strides.push_back(tensor.strides[i]);
}

} // namespace

TensorAccess::TensorAccess(py::object tensor_type, py::object increment_version, bool exchange)
    : data_ptr_(tensor_type.attr("data_ptr")), is_contiguous_(tensor_type.attr("is_contiguous")),
      stride_(tensor_type.attr("stride")), size_(tensor_type.attr("size")),
      numel_(tensor_type.attr("numel")), increment_version_(std::move(increment_version)),
      grad_(tensor_type.attr("grad")), grad_name_("grad"), dtype_name_("dtype"),
      is_cpu_name_("is_cpu"), api_(exchange ? exchange_of(tensor_type.ptr()) : nullptr) {
    if (Py_TYPE(grad_.ptr()) == &PyGetSetDescr_Type)
        grad_field_ = reinterpret_cast<PyGetSetDescrObject *>(grad_.ptr())->d_getset;
    const py::module_ torch = py::module_::import("torch");
    parameter_type_ = torch.attr("nn").attr("Parameter");
    plain_types_[0] = reinterpret_cast<PyTypeObject *>(parameter_type_.ptr());
    plain_types_[1] = reinterpret_cast<PyTypeObject *>(tensor_type.ptr());
    for (const auto &[name, dtype] :
         {std::pair("float32", Dtype::float32), std::pair("bfloat16", Dtype::bfloat16),
          std::pair("float16", Dtype::float16)})
        dtypes_.emplace_back(torch.attr(name), dtype);
}

void TensorAccess::read(PyObject *tensor, TensorView &view) const {
    DlTensor seen;
    if (!api_ || api_->view(tensor, &seen) != 0) {
        PyErr_Clear(); // of a kind that DLPack has no word for
        return read_by_methods(tensor, view);
    }
    view.data = static_cast<char *>(seen.data) + seen.byte_offset;
    view.on_cpu = seen.on_cpu();
    find_dtype(seen, view);
    find_layout(seen, view);
}

void TensorAccess::read_by_methods(PyObject *tensor, TensorView &view) const {
    view.data = reinterpret_cast<void *>(PyLong_AsSize_t(call_one(data_ptr_, tensor).ptr()));
    view.numel = call_one(numel_, tensor).cast<int64_t>();
    const py::object dtype = py::getattr(tensor, dtype_name_);
    view.on_cpu = py::getattr(tensor, is_cpu_name_).ptr() == Py_True;
    view.known_dtype = false;
    for (const auto &[object, known] : dtypes_)
        if (object.is(dtype)) {
            view.dtype = known;
            view.known_dtype = true;
        }
    view.contiguous = call_one(is_contiguous_, tensor).ptr() == Py_True;
    view.strides.clear();
    if (view.contiguous)
        return;
    const py::tuple sizes = call_one(size_, tensor), strides = call_one(stride_, tensor);
    for (size_t i = 0; i < sizes.size(); ++i)
        if (sizes[i].cast<int64_t>() != 1)
            view.strides.push_back(strides[i].cast<int64_t>());
}

py::object TensorAccess::grad_of(PyObject *tensor) const {
    PyObject *grad = has_plain_grad(tensor) ? grad_field_->get(tensor, grad_field_->closure)
                                            : PyObject_GetAttr(tensor, grad_name_.ptr());
    if (!grad)
        throw py::error_already_set();
    return py::reinterpret_steal<py::object>(grad);
}

void TensorAccess::drop_gradients(const py::list &tensors) const {
    for (size_t i = 0; i < tensors.size(); ++i) { // the list may change: dropping runs destructors
        PyObject *tensor = PyList_GET_ITEM(tensors.ptr(), Py_ssize_t(i));
        const auto keep = py::reinterpret_borrow<py::object>(tensor);
        const int status = has_plain_grad(tensor)
                               ? grad_field_->set(tensor, Py_None, grad_field_->closure)
                               : PyObject_SetAttr(tensor, grad_name_.ptr(), Py_None);
        if (status != 0)
            throw py::error_already_set();
    }
}

} // namespace fasttrain

void bind_tensor(py::module_ &module) {
    using namespace fasttrain;
    py::class_<TensorAccess>(module, "TensorAccess")
        .def(py::init<py::object, py::object, bool>())
        .def_property_readonly("exchanges", &TensorAccess::exchanges)
        .def("drop_gradients", &TensorAccess::drop_gradients)
        .def("describe",
             [](const TensorAccess &access, const py::object &tensor) {
                 TensorView view;
                 access.read(tensor.ptr(), view);
                 return py::make_tuple(reinterpret_cast<uintptr_t>(view.data), view.numel,
                                       view.known_dtype ? py::cast(int(view.dtype)) : py::none(),
                                       view.contiguous, view.strides, view.on_cpu);
             })
        .def("grad_of", [](const TensorAccess &access, const py::object &tensor) {
            return access.grad_of(tensor.ptr());
        });
}
