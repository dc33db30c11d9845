// Python's view of a table: parameters, groups and gradients are looked up here, once per step.
#include "bindings_tensor.h"
#include "cpu_step.h"
#include "parallel.h"
#ifdef FT_CUDA
#include "cuda_step.h"
#endif

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <unordered_set>

namespace py = pybind11;
using namespace fasttrain;

namespace {

// A value that cannot change behind an unchanged reference.
bool is_constant(PyObject *value) {
    if (PyFloat_CheckExact(value) || PyLong_Check(value) || value == Py_None)
        return true;
    if (!PyTuple_CheckExact(value))
        return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); ++i)
        if (!is_constant(PyTuple_GET_ITEM(value, i)))
            return false;
    return true;
}

RuleKind rule_named(const std::string &name) {
    for (int kind = 0; kind < kNumRules; ++kind)
        if (name == kRuleNames[kind])
            return RuleKind(kind);
    throw std::invalid_argument("no update rule is named '" + name + "'");
}

struct BusyGuard {
    explicit BusyGuard(std::atomic<bool> &flag) : flag(flag) {
        if (flag.exchange(true))
            throw std::runtime_error("two threads step the same optimizer; one optimizer's steps "
                                     "must follow one another");
    }
    ~BusyGuard() { flag = false; }
    std::atomic<bool> &flag;
};

// What a dict of state dicts held when the table was built: as long as the same objects are in the
// same places, the addresses in the table are those of the states. References keep them alive.
class StateSnapshot {
  public:
    // Of the entries of `params` alone; others change as they please.
    void take(py::object state, const std::vector<PyObject *> &params) {
        state_ = std::move(state);
        held_.clear();
        if (!PyDict_Check(state_.ptr()))
            return;
        const std::unordered_set<PyObject *> wanted(params.begin(), params.end());
        visit([&](PyObject *param, PyObject *states) {
            const bool ours = wanted.count(param) != 0 && PyDict_Check(states);
            held_.push_back(py::reinterpret_borrow<py::object>(param));
            held_.push_back(ours ? py::reinterpret_borrow<py::object>(states) : py::object());
            if (ours)
                visit_values(states, [&](PyObject *value) {
                    held_.push_back(py::reinterpret_borrow<py::object>(value));
                    return true;
                });
            return true;
        });
    }

    bool holds(const py::object &state) const {
        if (state.ptr() != state_.ptr())
            return false;
        if (!PyDict_Check(state_.ptr()))
            return true;
        size_t at = 0;
        const auto is_next = [&](PyObject *object) {
            return at < held_.size() && held_[at++].ptr() == object;
        };
        const bool same = visit([&](PyObject *param, PyObject *states) {
            if (!is_next(param) || at == held_.size())
                return false;
            if (!held_[at]) // not ours
                return ++at, true;
            return is_next(states) && visit_values(states, is_next);
        });
        return same && at == held_.size();
    }

  private:
    // Calls `visitor(key, value)` until it says false; whether it never did.
    template <class Visitor> bool visit(Visitor &&visitor) const {
        Py_ssize_t position = 0;
        PyObject *key, *value;
        while (PyDict_Next(state_.ptr(), &position, &key, &value))
            if (!visitor(key, value))
                return false;
        return true;
    }

    template <class Visitor> static bool visit_values(PyObject *dict, Visitor &&visitor) {
        Py_ssize_t position = 0;
        PyObject *key, *value;
        while (PyDict_Next(dict, &position, &key, &value))
            if (!visitor(value))
                return false;
        return true;
    }

    py::object state_;
    std::vector<py::object> held_; // per entry: parameter, its dict or null, the dict's values
};

class Table {
  public:
    // `keys` are what of a group matters, the learning rate first.
    Table(const std::string &path, const TensorAccess &access, py::object values_of,
          std::vector<std::string> keys)
        : table_(path), access_(access), values_of_(std::move(values_of)),
          params_name_(intern("params")) {
        for (const std::string &key : keys)
            keys_.push_back(intern(key.c_str()));
    }

    // Where the table will be finished, for a GPU; groups come after it.
    void set_gpu(py::object device) { gpu_ = std::move(device); }

    void add_group(py::dict group) {
        HeldGroup held;
        held.params = group[params_name_];
        for (const py::handle param : held.params)
            held.members.push_back(py::reinterpret_borrow<py::object>(param));
        held.dict = std::move(group);
        groups_.push_back(std::move(held));
        table_.groups.emplace_back();
        read_group(groups_.size() - 1);
    }

    // `grad_type` is what its gradients will come in.
    void add(py::object param, int group, Dtype grad_type, Dtype state_type,
             const std::vector<uintptr_t> &states, uintptr_t master, Master master_kind,
             uintptr_t step, uint32_t seed, bool stochastic, bool first) {
        TensorView view;
        access_.read(param.ptr(), view);
        Slot slot;
        slot.param = view.data;
        for (size_t k = 0; k < states.size() && k < 3; ++k)
            slot.states[k] = reinterpret_cast<void *>(states[k]);
        slot.master = reinterpret_cast<void *>(master);
        slot.master_kind = master_kind;
        slot.step = reinterpret_cast<float *>(step);
        slot.numel = view.numel;
        slot.group = group;
        slot.param_type = view.dtype;
        slot.grad_type = grad_type;
        slot.state_type = state_type;
        slot.seed = seed;
        slot.stochastic = stochastic;
        slot.first = first;
        table_.slots.push_back(slot);
        params_.push_back({param, std::move(view)});
        all_params_.append(std::move(param));
    }

    void watch(py::object param) { watched_.push_back(std::move(param)); }

    void finish() { table_.finish(); }

    // Call it when the states of all slots are in `state`, the optimizer's.
    void hold_state(py::object state) {
        std::vector<PyObject *> params;
        for (const HeldParam &held : params_)
            params.push_back(held.param.ptr());
        snapshot_.take(std::move(state), params);
    }

    bool first(size_t index) const { return table_.slots.at(index).first; }

    // (norm, coefficient, finite), or the name of what stands in the way: "rebind" when the table
    // no longer describes the parameters, "irregular" when a gradient has another layout or dtype.
    // `given` has a gradient or None per parameter, in the table's order; None: each one's `grad`.
    py::object step(py::list param_groups, py::object state, py::object given, double unscale,
                    NormKind norm, double power, double max_norm, double clip_value,
                    double extra_norm, double known_norm, bool check_finite, bool zero,
                    int threads) {
        const BusyGuard guard(busy_);
        if (!groups_hold(param_groups) || !snapshot_.holds(state) || !params_hold())
            return py::str("rebind");
        std::vector<py::object> grads; // keeps them alive while the lock is released
        if (!find_gradients(given, grads))
            return py::str("irregular");
        StepRequest request{unscale,    norm,       power,        max_norm, clip_value,
                            extra_norm, known_norm, check_finite, zero,     threads};
        StepReport report;
        {
            const py::gil_scoped_release release;
            report = table_.step(request);
        }
        if (report.finite || !check_finite)
            increment_versions(grads);
        if (zero && !grads.empty())
            access_.increment_version(py::cast(grads));
        return py::make_tuple(report.norm, report.coefficient, report.finite);
    }

#ifdef FT_CUDA
    size_t workspace_bytes() const {
        return CudaTable::workspace_bytes(table_.slots, table_.groups);
    }

    // Instead of `finish` for a table on a GPU; `workspace` is device memory that the caller keeps.
    void finish_cuda(int device, uintptr_t workspace, uintptr_t stream) {
        cuda_.reset(new CudaTable(table_.slots, table_.groups, device,
                                  reinterpret_cast<void *>(workspace),
                                  reinterpret_cast<void *>(stream)));
    }

    // Takes over from the device which slots were updated already. Waits for the stream.
    void read_first(uintptr_t stream) {
        const py::gil_scoped_release release;
        cuda_->read_first(table_.slots, reinterpret_cast<void *>(stream));
    }

    // As `step`, but everything stays on the device: addresses of the loss scale, of a flag that
    // forbids the step, and of where norm and flag go; 0 where there is none. True when the step
    // went into a graph.
    py::object step_cuda(py::list param_groups, py::object state, py::object given, double unscale,
                         NormKind norm, double power, double max_norm, double clip_value,
                         bool check_finite, bool zero, uintptr_t scale, uintptr_t found_inf,
                         uintptr_t norm_out, uintptr_t found_out, uintptr_t stream) {
        const BusyGuard guard(busy_);
        if (!groups_hold(param_groups) || !snapshot_.holds(state) || !params_hold())
            return py::str("rebind");
        std::vector<py::object> grads;
        if (!find_gradients(given, grads))
            return py::str("irregular");
        const StepRequest request{unscale, norm, power,        max_norm, clip_value,
                                  0.0,     -1.0, check_finite, zero,     1};
        const DeviceScalars scalars{
            reinterpret_cast<const float *>(scale), reinterpret_cast<const float *>(found_inf),
            reinterpret_cast<float *>(norm_out), reinterpret_cast<float *>(found_out)};
        bool captured;
        {
            const py::gil_scoped_release release;
            captured = cuda_->step(table_.slots, table_.groups, request, scalars,
                                   reinterpret_cast<void *>(stream));
        }
        increment_versions(grads);
        if (zero && !grads.empty())
            access_.increment_version(py::cast(grads));
        return py::bool_(captured);
    }
#endif

  private:
    struct HeldGroup {
        py::dict dict;
        py::list params;
        std::vector<py::object> members; // of `params`
        std::vector<py::object> values;  // of `keys`, as last seen
    };
    struct HeldParam {
        py::object param;
        TensorView view;
    };

    static py::object intern(const char *text) {
        return py::reinterpret_steal<py::object>(PyUnicode_InternFromString(text));
    }

    PyObject *value_at(const HeldGroup &group, size_t key) const {
        PyObject *value = PyDict_GetItemWithError(group.dict.ptr(), keys_[key].ptr());
        return value ? value : Py_None;
    }

    // Where a learning rate is that the GPU can read by itself; null for any other.
    const float *on_gpu(const py::object &lr) const {
        if (!gpu_ || is_constant(lr.ptr()) || !py::hasattr(lr, "data_ptr") ||
            !py::object(lr.attr("device")).equal(gpu_) ||
            !lr.attr("is_floating_point")().cast<bool>() ||
            lr.attr("element_size")().cast<int>() != 4)
            return nullptr;
        return address_of(lr.ptr());
    }

    const float *address_of(PyObject *tensor) const {
        TensorView view;
        access_.read(tensor, view);
        return static_cast<const float *>(view.data);
    }

    bool is_read_there(size_t index, PyObject *lr) const {
        const float *at = table_.groups[index].lr_at;
        return at && at == address_of(lr);
    }

    // Takes a group's values over; false when its rule became another one.
    bool read_group(size_t index) {
        HeldGroup &held = groups_[index];
        held.values.resize(keys_.size());
        for (size_t key = 0; key < keys_.size(); ++key)
            held.values[key] = py::reinterpret_borrow<py::object>(value_at(held, key));
        Group &group = table_.groups[index];
        group.lr_at = on_gpu(held.values[0]);
        py::dict known = held.dict;
        if (group.lr_at) { // its value is not for the host to know
            known = py::reinterpret_steal<py::dict>(PyDict_Copy(held.dict.ptr()));
            known[keys_[0]] = 0.0;
        }
        const py::tuple found = values_of_(known);
        const RuleKind kind = rule_named(found[0].cast<std::string>());
        const py::tuple values = found[2];
        const bool same = group.kind == kind;
        group.kind = kind;
        group.maximize = found[1].cast<bool>();
        for (size_t i = 0; i < values.size() && i < size_t(kMaxValues); ++i)
            group.values[i] = values[i].cast<double>();
        return same;
    }

    static bool members_hold(const HeldGroup &held) {
        if (held.params.size() != held.members.size())
            return false;
        for (size_t i = 0; i < held.members.size(); ++i)
            if (PyList_GET_ITEM(held.params.ptr(), Py_ssize_t(i)) != held.members[i].ptr())
                return false;
        return true;
    }

    bool groups_hold(const py::list &param_groups) {
        if (param_groups.size() != groups_.size())
            return false;
        for (size_t index = 0; index < groups_.size(); ++index) {
            HeldGroup &held = groups_[index];
            if (PyList_GET_ITEM(param_groups.ptr(), Py_ssize_t(index)) != held.dict.ptr() ||
                PyDict_GetItemWithError(held.dict.ptr(), params_name_.ptr()) != held.params.ptr() ||
                !members_hold(held))
                return false;
            int changed = -1;
            for (size_t key = 0; key < keys_.size(); ++key) {
                PyObject *value = value_at(held, key);
                if (value == held.values[key].ptr() &&
                    (is_constant(value) || (key == 0 && is_read_there(index, value))))
                    continue;
                changed = changed < 0 ? int(key) : int(keys_.size());
            }
            if (changed == 0 && PyFloat_CheckExact(value_at(held, 0))) { // the learning rate alone
                held.values[0] = py::reinterpret_borrow<py::object>(value_at(held, 0));
                table_.groups[index].values[0] = PyFloat_AS_DOUBLE(held.values[0].ptr());
                table_.groups[index].lr_at = nullptr;
            } else if (changed >= 0 && !read_group(index)) {
                return false;
            }
        }
        return true;
    }

    bool params_hold() {
        TensorView now;
        for (const HeldParam &held : params_) {
            try {
                access_.read(held.param.ptr(), now);
            } catch (py::error_already_set &) { // it became one without memory
                return false;
            }
            if (now.data != held.view.data || now.numel != held.view.numel ||
                now.dtype != held.view.dtype || !now.known_dtype || !now.same_layout(held.view))
                return false;
        }
        for (const py::object &param : watched_)
            if (!access_.grad_of(param.ptr()).is_none())
                return false;
        return true;
    }

    bool find_gradients(const py::object &given, std::vector<py::object> &grads) {
        const bool is_given = !given.is_none();
        grads.reserve(params_.size());
        TensorView view;
        for (size_t i = 0; i < params_.size(); ++i) {
            Slot &slot = table_.slots[i];
            slot.grad = nullptr;
            py::object grad = is_given ? py::reinterpret_borrow<py::object>(
                                             PyList_GET_ITEM(given.ptr(), Py_ssize_t(i)))
                                       : access_.grad_of(params_[i].param.ptr());
            if (grad.is_none())
                continue;
            try {
                access_.read(grad.ptr(), view);
            } catch (py::error_already_set &) { // sparse: there is no storage to point at
                return false;
            }
            if (!view.known_dtype || view.dtype != slot.grad_type || view.numel != slot.numel ||
                !view.same_layout(params_[i].view))
                return false;
            slot.grad = view.data ? view.data : this; // an empty one has no address, but counts
            grads.push_back(std::move(grad));
        }
        return true;
    }

    void increment_versions(const std::vector<py::object> &grads) {
        if (grads.size() == params_.size()) {
            access_.increment_version(all_params_);
            return;
        }
        py::list updated;
        for (size_t i = 0; i < params_.size(); ++i)
            if (table_.slots[i].grad)
                updated.append(params_[i].param);
        access_.increment_version(updated);
    }

    CpuTable table_; // on a GPU it only holds slots and groups
#ifdef FT_CUDA
    std::unique_ptr<CudaTable> cuda_;
#endif
    TensorAccess access_;
    py::object values_of_;
    py::object gpu_; // torch.device, null on the CPU
    py::object params_name_;
    std::vector<py::object> keys_;
    std::vector<HeldGroup> groups_;
    std::vector<HeldParam> params_;
    std::vector<py::object> watched_;
    StateSnapshot snapshot_;
    py::list all_params_;
    std::atomic<bool> busy_{false};
};

} // namespace

void bind_optimizer(py::module_ &module) {
    py::enum_<Dtype>(module, "Dtype")
        .value("float32", Dtype::float32)
        .value("bfloat16", Dtype::bfloat16)
        .value("float16", Dtype::float16);
    py::enum_<Master>(module, "Master")
        .value("none", Master::none)
        .value("full", Master::full)
        .value("split16", Master::split16);
    py::enum_<NormKind>(module, "NormKind")
        .value("none", NormKind::none)
        .value("two", NormKind::two)
        .value("inf", NormKind::inf)
        .value("power", NormKind::power);
    py::class_<Table>(module, "Table")
        .def(py::init<const std::string &, const TensorAccess &, py::object,
                      std::vector<std::string>>())
        .def("add_group", &Table::add_group)
        .def("add", &Table::add)
        .def("watch", &Table::watch)
        .def("finish", &Table::finish)
        .def("hold_state", &Table::hold_state)
        .def("first", &Table::first)
#ifdef FT_CUDA
        .def("workspace_bytes", &Table::workspace_bytes)
        .def("finish_cuda", &Table::finish_cuda)
        .def("set_gpu", &Table::set_gpu)
        .def("read_first", &Table::read_first)
        .def("step_cuda", &Table::step_cuda)
#endif
        .def("step", &Table::step);
    module.def("gradient_sum",
               [](const std::string &path, uintptr_t grad, int64_t numel, Dtype type, int threads) {
                   const py::gil_scoped_release release;
                   return gradient_sum(path, reinterpret_cast<void *>(grad), numel, type, threads);
               });
    // Adds a gradient to a float32 tensor; false when torch must, for layout, dtype or device.
    module.def("add_gradient", [](const TensorAccess &access, const std::string &path,
                                  const py::object &sum, const py::object &grad, bool first,
                                  int threads) {
        TensorView to, from;
        access.read(sum.ptr(), to);
        access.read(grad.ptr(), from);
        if (!to.on_cpu || !from.on_cpu || !to.known_dtype || !from.known_dtype ||
            to.dtype != Dtype::float32 || to.numel != from.numel || !to.same_layout(from))
            return false;
        const py::gil_scoped_release release;
        add_gradient(path, static_cast<float *>(to.data), from.data, from.numel, from.dtype, first,
                     threads);
        return true;
    });
    module.def("cpu_paths", [] {
        py::list names;
        for (const CpuKernels *kernels : runnable_cpu_kernels())
            names.append(kernels->name);
        return names;
    });
    module.def("thread_team", &team_name);
}
