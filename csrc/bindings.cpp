// The Python module fasttrain._C: each part binds itself in its own file.
#include <pybind11/pybind11.h>

#ifdef FT_CUDA
#include "cuda_step.h"
#endif

namespace py = pybind11;

void bind_checkpoint(py::module_ &module);
void bind_gather(py::module_ &module);
void bind_history(py::module_ &module);
void bind_optimizer(py::module_ &module);
void bind_tensor(py::module_ &module);

PYBIND11_MODULE(_C, module) {
    module.doc() = "fasttrain's native core";
    module.def("build_info", [] {
        py::dict info;
        info["compiler"] = __VERSION__;
#ifdef FT_CUDA
        info["cuda"] = true;
        info["cuda_architectures"] = fasttrain::cuda_architectures();
#else
        info["cuda"] = false;
#endif
        return info;
    });
#ifdef FT_CUDA
    module.def("cuda_problem", &fasttrain::cuda_problem);
#else
    module.def("cuda_problem", [] { return "fasttrain was built without its CUDA backend"; });
#endif
    bind_checkpoint(module);
    bind_gather(module);
    bind_history(module);
    bind_tensor(module);
    bind_optimizer(module);
}
