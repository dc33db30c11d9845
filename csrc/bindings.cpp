// The only file that knows Python: exposes the native core as fasttrain._C.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_C, m) { m.doc() = "Native core of fasttrain."; }
