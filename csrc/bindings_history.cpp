// Python face of the ring. A plain C type: its methods run once per logged scalar, where the
// argument handling of a general binding would cost more than the work.
#include "history.h"
#include "tensor_view.h"

#include <cmath>
#include <cstring>
#include <new>

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace {

using fasttrain::DlExchange;
using fasttrain::DlTensor;
using fasttrain::Ring;

struct RingObject {
    PyObject_HEAD Ring ring;
    bool integral; // only integers that a double holds exactly were put in so far
};

PyTypeObject *ring_type = nullptr;

Ring &ring_of(PyObject *self) { return reinterpret_cast<RingObject *>(self)->ring; }

// Reads a Python number; false without an error set when it is none.
constexpr double kMaxWhole = 9007199254740992.0; // 2^53: beyond it a double skips integers

bool read_number(PyObject *object, double *value, bool *integral) {
    if (PyFloat_Check(object)) {
        *value = PyFloat_AS_DOUBLE(object);
        *integral = false;
        return true;
    }
    if (PyLong_Check(object)) {
        *value = PyLong_AsDouble(object);
        *integral = std::fabs(*value) <= kMaxWhole;
        if (*value == -1.0 && PyErr_Occurred() != nullptr) {
            PyErr_Clear();
            return false;
        }
        return true;
    }
    return false;
}

void append(PyObject *self, double value, double count, bool integral) {
    RingObject *object = reinterpret_cast<RingObject *>(self);
    object->ring.append(value, count);
    object->integral = object->integral && integral;
}

PyObject *ring_append(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 1 && nargs != 2)
        return PyErr_Format(PyExc_TypeError,
                            "append expects a value and a count, got %zd arguments", nargs);
    double value = 0.0, count = 1.0;
    bool integral = false, ignored = false;
    if (!read_number(args[0], &value, &integral))
        return PyErr_Format(PyExc_TypeError, "value must be a Python int or float, got %R",
                            Py_TYPE(args[0]));
    if (nargs == 2 && !read_number(args[1], &count, &ignored))
        return PyErr_Format(PyExc_TypeError, "count must be a Python int or float, got %R",
                            Py_TYPE(args[1]));
    try {
        append(self, value, count, integral);
    } catch (const std::bad_alloc &) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

// A float64 vector behind a buffer, released with the object.
class Vector {
  public:
    explicit Vector(PyObject *object) {
        if (PyObject_GetBuffer(object, &view_, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) != 0)
            return;
        held_ = true;
        const char *format = view_.format;
        if (view_.ndim != 1 || format == nullptr || format[0] != 'd' || format[1] != '\0')
            PyErr_SetString(PyExc_TypeError, "expected a one-dimensional float64 array");
        else
            good_ = true;
    }
    ~Vector() {
        if (held_)
            PyBuffer_Release(&view_);
    }
    bool good() const { return good_; }
    std::size_t size() const { return static_cast<std::size_t>(view_.len) / sizeof(double); }
    const double *data() const { return static_cast<const double *>(view_.buf); }

  private:
    Py_buffer view_{};
    bool held_ = false;
    bool good_ = false;
};

PyObject *ring_extend(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "extend expects values and counts, got %zd arguments",
                            nargs);
    const Vector values(args[0]);
    if (!values.good())
        return nullptr;
    const Vector counts(args[1]);
    if (!counts.good())
        return nullptr;
    if (values.size() != counts.size())
        return PyErr_Format(PyExc_ValueError, "expected as many counts as values, got %zu and %zu",
                            counts.size(), values.size());
    try {
        ring_of(self).extend(values.data(), counts.data(), values.size());
    } catch (const std::bad_alloc &) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

// The argument as a ring's length; 0 means that an error is set.
std::size_t read_max_length(PyObject *argument) {
    const Py_ssize_t length = PyNumber_AsSsize_t(argument, PyExc_OverflowError);
    if (PyErr_Occurred() != nullptr)
        return 0;
    if (length < 1) {
        PyErr_Format(PyExc_ValueError, "max_length must be >= 1, got %zd", length);
        return 0;
    }
    return static_cast<std::size_t>(length);
}

PyObject *ring_reset(PyObject *self, PyObject *argument) {
    const std::size_t max_length = read_max_length(argument);
    if (max_length == 0)
        return nullptr;
    ring_of(self) = Ring(max_length);
    reinterpret_cast<RingObject *>(self)->integral = true;
    Py_RETURN_NONE;
}

// The argument `size` of a window: at most what is there; negative means an error is set.
Py_ssize_t window_size(PyObject *self, PyObject *argument) {
    const Py_ssize_t size = PyNumber_AsSsize_t(argument, nullptr);
    if (size == -1 && PyErr_Occurred() != nullptr)
        return -1;
    if (size < 0) {
        PyErr_Format(PyExc_ValueError, "size must be >= 0, got %zd", size);
        return -1;
    }
    const Py_ssize_t length = static_cast<Py_ssize_t>(ring_of(self).size());
    return size < length ? size : length;
}

PyObject *ring_window(PyObject *self, PyObject *argument) {
    const Py_ssize_t size = window_size(self, argument);
    if (size < 0)
        return nullptr;
    const Py_ssize_t bytes = size * static_cast<Py_ssize_t>(sizeof(double));
    py::object values =
        py::reinterpret_steal<py::object>(PyByteArray_FromStringAndSize(nullptr, bytes));
    py::object counts =
        py::reinterpret_steal<py::object>(PyByteArray_FromStringAndSize(nullptr, bytes));
    if (!values || !counts)
        return nullptr;
    ring_of(self).copy_last(static_cast<std::size_t>(size),
                            reinterpret_cast<double *>(PyByteArray_AS_STRING(values.ptr())),
                            reinterpret_cast<double *>(PyByteArray_AS_STRING(counts.ptr())));
    return PyTuple_Pack(2, values.ptr(), counts.ptr());
}

PyObject *ring_sums(PyObject *self, PyObject *argument) {
    const Py_ssize_t size = window_size(self, argument);
    if (size < 0)
        return nullptr;
    const Ring::Sums sums = ring_of(self).sums(static_cast<std::size_t>(size));
    return Py_BuildValue("(dd)", sums.values, sums.counts);
}

bool require_values(PyObject *self) {
    if (ring_of(self).size() != 0)
        return true;
    PyErr_SetString(PyExc_ValueError, "the series is empty");
    return false;
}

PyObject *ring_last(PyObject *self, PyObject *) {
    return require_values(self) ? PyFloat_FromDouble(ring_of(self).last()) : nullptr;
}

PyObject *ring_median(PyObject *self, PyObject *argument) {
    const Py_ssize_t size = window_size(self, argument);
    if (size < 0 || !require_values(self))
        return nullptr;
    if (size == 0)
        return PyErr_Format(PyExc_ValueError, "the window is empty");
    try {
        return PyFloat_FromDouble(ring_of(self).median(static_cast<std::size_t>(size)));
    } catch (const std::bad_alloc &) {
        return PyErr_NoMemory();
    }
}

PyObject *ring_recent(PyObject *self, PyObject *argument) {
    const double span = PyFloat_AsDouble(argument);
    if (PyErr_Occurred() != nullptr || !require_values(self))
        return nullptr;
    const Ring &ring = ring_of(self);
    const std::size_t n = ring.num_recent(span);
    try {
        return Py_BuildValue("(dddn)", ring.last(), ring.last_count(), ring.median(n),
                             static_cast<Py_ssize_t>(n));
    } catch (const std::bad_alloc &) {
        return PyErr_NoMemory();
    }
}

PyObject *ring_new(PyTypeObject *type, PyObject *args, PyObject *) {
    PyObject *argument = nullptr;
    if (!PyArg_ParseTuple(args, "O", &argument))
        return nullptr;
    const std::size_t max_length = read_max_length(argument);
    if (max_length == 0)
        return nullptr;
    PyObject *self = type->tp_alloc(type, 0);
    if (self == nullptr)
        return nullptr;
    new (&reinterpret_cast<RingObject *>(self)->ring) Ring(max_length);
    reinterpret_cast<RingObject *>(self)->integral = true;
    return self;
}

void ring_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    ring_of(self).~Ring();
    type->tp_free(self);
    Py_DECREF(type);
}

Py_ssize_t ring_length(PyObject *self) { return static_cast<Py_ssize_t>(ring_of(self).size()); }

PyObject *get_max_length(PyObject *self, void *) {
    return PyLong_FromSize_t(ring_of(self).max_length());
}

PyObject *get_total(PyObject *self, void *) {
    return PyLong_FromUnsignedLongLong(ring_of(self).total());
}

int set_total(PyObject *self, PyObject *value, void *) {
    if (value == nullptr) {
        PyErr_SetString(PyExc_AttributeError, "total cannot be deleted");
        return -1;
    }
    const unsigned long long total = PyLong_AsUnsignedLongLong(value);
    if (PyErr_Occurred() != nullptr)
        return -1;
    ring_of(self).set_total(total);
    return 0;
}

PyObject *get_integral(PyObject *self, void *) {
    return PyBool_FromLong(reinterpret_cast<RingObject *>(self)->integral);
}

int set_integral(PyObject *self, PyObject *value, void *) {
    const int flag = value == nullptr ? -1 : PyObject_IsTrue(value);
    if (flag < 0)
        return -1;
    reinterpret_cast<RingObject *>(self)->integral = flag != 0;
    return 0;
}

PyMethodDef ring_methods[] = {
    {"append", reinterpret_cast<PyCFunction>(reinterpret_cast<void *>(ring_append)), METH_FASTCALL,
     "append(value, count=1.0): put a pair at the end."},
    {"extend", reinterpret_cast<PyCFunction>(reinterpret_cast<void *>(ring_extend)), METH_FASTCALL,
     "extend(values, counts): put float64 vectors at the end."},
    {"reset", ring_reset, METH_O, "reset(max_length): forget everything."},
    {"window", ring_window, METH_O, "window(size): bytes of the last values and counts, float64."},
    {"sums", ring_sums, METH_O, "sums(size): sums of the last values and of their counts."},
    {"last", ring_last, METH_NOARGS, "The newest value."},
    {"median", ring_median, METH_O, "median(size): median of the last values; NaN with a NaN."},
    {"recent", ring_recent, METH_O,
     "recent(span): newest value and count, and median and number of the last values whose counts "
     "lie above the newest count less span."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef ring_properties[] = {
    {"max_length", get_max_length, nullptr, "Most pairs that are kept.", nullptr},
    {"total", get_total, set_total, "Pairs ever put in, dropped ones included.", nullptr},
    {"integral", get_integral, set_integral, "Whether only integers were put in.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot ring_slots[] = {
    {Py_tp_doc, const_cast<char *>("Bounded ring of (value, count) pairs in float64.")},
    {Py_tp_new, reinterpret_cast<void *>(ring_new)},
    {Py_tp_dealloc, reinterpret_cast<void *>(ring_dealloc)},
    {Py_tp_methods, ring_methods},
    {Py_tp_getset, ring_properties},
    {Py_sq_length, reinterpret_cast<void *>(ring_length)},
    {0, nullptr},
};

PyType_Spec ring_spec = {"fasttrain._C.Ring", sizeof(RingObject), 0, Py_TPFLAGS_DEFAULT,
                         ring_slots};

// Reads a host tensor of one element by its own method.
bool ask_for_item(PyObject *tensor, double *value, bool *integral) {
    static PyObject *is_cpu = PyUnicode_InternFromString("is_cpu");
    static PyObject *item = PyUnicode_InternFromString("item");
    PyObject *number = nullptr;
    PyObject *on_host = PyObject_GetAttr(tensor, is_cpu);
    if (on_host == Py_True)
        number = PyObject_CallMethodObjArgs(tensor, item, nullptr);
    Py_XDECREF(on_host);
    if (number == nullptr) {
        PyErr_Clear(); // the caller's own path finds the fault again and words it
        return false;
    }
    const bool good = read_number(number, value, integral);
    Py_DECREF(number);
    return good;
}

// Reads a host tensor of one element; false without an error set when it is anything else.
// Those of the usual types are read where they lie, without a call of `item`.
bool read_host_tensor(PyObject *tensor, double *value, bool *integral) {
    static const DlExchange *const exchange =
        fasttrain::exchange_of(reinterpret_cast<PyObject *>(Py_TYPE(tensor)));
    DlTensor view;
    if (exchange == nullptr || exchange->view(tensor, &view) != 0) {
        PyErr_Clear();
        return ask_for_item(tensor, value, integral);
    }
    if (view.data == nullptr || !view.on_cpu() || !view.has_one_element() || view.code != 2 ||
        view.may_be_negated())
        return ask_for_item(tensor, value, integral);
    if (view.bits == 32) {
        float number;
        std::memcpy(&number, view.at(), sizeof(number));
        *value = number;
    } else if (view.bits == 64) {
        std::memcpy(value, view.at(), sizeof(*value));
    } else {
        return ask_for_item(tensor, value, integral);
    }
    *integral = false;
    return true;
}

// put_scalars(routes, scalars, tensor_type, count=1.0): append every plain finite number of
// `scalars`, and every host tensor of one element, with that count to the ring that `routes` has
// for its key. Returns the keys that are left to the caller, None when there are none.
PyObject *put_scalars(PyObject *, PyObject *const *args, Py_ssize_t nargs) {
    double count = 1.0;
    bool count_integral = false;
    if (nargs < 3 || nargs > 4 || !PyDict_Check(args[0]) || !PyDict_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "put_scalars expects two dicts and a type");
    if (nargs == 4 && !read_number(args[3], &count, &count_integral))
        return PyErr_Format(PyExc_TypeError, "count must be a Python int or float");
    PyObject *routes = args[0], *scalars = args[1];
    PyTypeObject *tensor_type = reinterpret_cast<PyTypeObject *>(args[2]);
    PyObject *rest = nullptr;
    PyObject *key = nullptr, *value = nullptr;
    Py_ssize_t position = 0;
    while (PyDict_Next(scalars, &position, &key, &value)) {
        PyObject *ring = PyDict_GetItemWithError(routes, key); // borrowed
        double number = 0.0;
        bool integral = false;
        if (ring != nullptr && Py_TYPE(ring) == ring_type &&
            (read_number(value, &number, &integral) ||
             (Py_TYPE(value) == tensor_type && read_host_tensor(value, &number, &integral))) &&
            std::isfinite(number)) {
            append(ring, number, count, integral);
            continue;
        }
        if (PyErr_Occurred() != nullptr || (rest == nullptr && (rest = PyList_New(0)) == nullptr) ||
            PyList_Append(rest, key) != 0) {
            Py_XDECREF(rest);
            return nullptr;
        }
    }
    if (rest == nullptr)
        Py_RETURN_NONE;
    return rest;
}

PyMethodDef put_scalars_definition = {
    "put_scalars", reinterpret_cast<PyCFunction>(reinterpret_cast<void *>(put_scalars)),
    METH_FASTCALL,
    "put_scalars(routes, scalars, tensor_type, count=1.0): append many; returns keys left over."};

} // namespace

void bind_history(py::module_ &m) {
    py::object type = py::reinterpret_steal<py::object>(PyType_FromSpec(&ring_spec));
    if (!type)
        throw py::error_already_set();
    ring_type = reinterpret_cast<PyTypeObject *>(type.ptr());
    m.attr("Ring") = type;
    py::object function = py::reinterpret_steal<py::object>(
        PyCFunction_NewEx(&put_scalars_definition, nullptr, nullptr));
    if (!function)
        throw py::error_already_set();
    m.attr("put_scalars") = function;
}
