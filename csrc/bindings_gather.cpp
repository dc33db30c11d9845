// Python's way to the gathering: looks the tensors up and reads them into a row.
#include "gather.h"
#include "tensor_view.h"

#include <pybind11/pybind11.h>

namespace py = pybind11;
using namespace fasttrain;

namespace {

py::object intern(const char *text) {
    return py::reinterpret_steal<py::object>(PyUnicode_InternFromString(text));
}

py::object take(PyObject *found) { return py::reinterpret_steal<py::object>(found); }

// The ways into a tensor: torch's exchange functions where it has them, else its methods.
class Gatherer {
  public:
    // `types`: torch's dtypes -> their place in SCALAR_TYPES. Without `exchange` only the methods
    // are used.
    Gatherer(py::object tensor_type, py::dict types, bool exchange)
        : tensor_type_(std::move(tensor_type)), types_(std::move(types)),
          data_ptr_(tensor_type_.attr("data_ptr")), is_neg_(tensor_type_.attr("is_neg")),
          numel_(tensor_type_.attr("numel")), dtype_(intern("dtype")), is_cuda_(intern("is_cuda")),
          get_device_(tensor_type_.attr("get_device")),
          exchange_(exchange ? exchange_of(tensor_type_.ptr()) : nullptr) {}

    bool exchanges() const { return exchange_ != nullptr; }

    // Reads plain tensors of one element each, all of one place, into the row; `index` is the
    // GPU's, or -1 for the host. Returns a byte per scalar, 1 where it is a whole number; or None,
    // with nothing done, when one of them is anything else.
    py::object gather(const py::list &tensors, uintptr_t row, int index, uintptr_t stream) const {
        const size_t count = tensors.size();
        std::vector<ScalarSource> sources(count);
        py::object whole = take(PyBytes_FromStringAndSize(nullptr, Py_ssize_t(count)));
        if (!whole)
            throw py::error_already_set();
        for (size_t i = 0; i < count; ++i) {
            if (!find(PyList_GET_ITEM(tensors.ptr(), Py_ssize_t(i)), index, sources[i])) {
                PyErr_Clear(); // the caller's long way finds the fault again and words it
                return py::none();
            }
            PyBytes_AS_STRING(whole.ptr())[i] = is_whole(sources[i].type);
        }
        if (index < 0)
            gather_host(sources, reinterpret_cast<double *>(row));
        else
            launch(sources, reinterpret_cast<double *>(row), index, stream);
        return whole;
    }

  private:
    static void launch(const std::vector<ScalarSource> &sources, double *row, int index,
                       uintptr_t stream) {
#ifdef FT_CUDA
        const py::gil_scoped_release release; // a full queue of launches makes the next one wait
        gather_cuda(sources, row, index, reinterpret_cast<void *>(stream));
#else
        (void)sources, (void)row, (void)index, (void)stream;
        throw std::runtime_error("fasttrain was built without its CUDA backend");
#endif
    }

    static py::object call(const py::object &method, PyObject *tensor) {
        PyObject *const arguments[] = {tensor};
        return take(PyObject_Vectorcall(method.ptr(), arguments, 1, nullptr));
    }

    // False, perhaps with an error set, for what is not a plain scalar of the device. A subclass
    // may keep its number anywhere.
    bool find(PyObject *tensor, int index, ScalarSource &source) const {
        return Py_TYPE(tensor) == reinterpret_cast<PyTypeObject *>(tensor_type_.ptr()) &&
               (exchange_ ? find_by_exchange(tensor, index, source)
                          : find_by_methods(tensor, index, source));
    }

    bool find_by_exchange(PyObject *tensor, int index, ScalarSource &source) const {
        DlTensor view;
        if (exchange_->view(tensor, &view) != 0 || !view.has_one_element() || !view.data)
            return false;
        if (index < 0 ? !view.on_cpu() : !view.on_cuda() || view.device_index != index)
            return false;
        source.at = view.at();
        return type_of(view, source.type) &&
               (!view.may_be_negated() || call(is_neg_, tensor).ptr() == Py_False);
    }

    static bool type_of(const DlTensor &view, ScalarType &type) {
        for (int i = 0; i < kNumScalarTypes; ++i) {
            const ScalarKind &kind = kScalarKinds[i];
            if (kind.code == view.code && kind.bits == view.bits && view.lanes == 1) {
                type = ScalarType(i);
                return true;
            }
        }
        return false;
    }

    bool find_by_methods(PyObject *tensor, int index, ScalarSource &source) const {
        const py::object type = take(PyObject_GetAttr(tensor, dtype_.ptr()));
        PyObject *code = type ? PyDict_GetItemWithError(types_.ptr(), type.ptr()) : nullptr;
        if (!code)
            return false;
        source.type = ScalarType(PyLong_AsLong(code));
        const py::object on_cuda = take(PyObject_GetAttr(tensor, is_cuda_.ptr()));
        const py::object device = call(get_device_, tensor);
        if (!device || on_cuda.ptr() != (index < 0 ? Py_False : Py_True) ||
            PyLong_AsLong(device.ptr()) != index)
            return false;
        const py::object numel = call(numel_, tensor);
        if (!numel || PyLong_AsLong(numel.ptr()) != 1 || call(is_neg_, tensor).ptr() != Py_False)
            return false;
        const py::object address = call(data_ptr_, tensor);
        source.at = address ? PyLong_AsVoidPtr(address.ptr()) : nullptr;
        return source.at != nullptr; // tensors that only stand for zero have no memory
    }

    py::object tensor_type_;
    py::dict types_;
    py::object data_ptr_, is_neg_, numel_, dtype_, is_cuda_, get_device_;
    const DlExchange *exchange_;
};

} // namespace

void bind_gather(py::module_ &module) {
    py::list names;
    for (const ScalarKind &kind : kScalarKinds)
        names.append(kind.name);
    module.attr("SCALAR_TYPES") = py::tuple(names);
    py::class_<Gatherer>(module, "Gatherer")
        .def(py::init<py::object, py::dict, bool>())
        .def_property_readonly("exchanges", &Gatherer::exchanges)
        .def("gather", &Gatherer::gather);
}
