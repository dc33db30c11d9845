#!/usr/bin/env bash
# The native code under AddressSanitizer and UBSan: builds a copy of the module, proves that a read
# past the end is caught in it, and runs the tests of every room that meets native code.
#
#   tests/sanitize.sh [PYTEST ARGUMENT ...]     default: all these rooms, some minutes
#
# Leaks are not looked for: the interpreter and torch keep memory until the process ends, by the
# thousand blocks, and what the module owns is freed by C++ destructors.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
BUILD=$PWD/${BUILD:-build/sanitize}
CXX=${CXX:-g++}
FLAGS="-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all"
FLAGS+=" -fno-omit-frame-pointer -g -D_GLIBCXX_ASSERTIONS"

cmake -S . -B "$BUILD/cmake" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DFASTTRAIN_CUDA=OFF \
    -DPython_EXECUTABLE="$(command -v "$PYTHON")" -DCMAKE_CXX_COMPILER="$CXX" \
    -Dpybind11_DIR="$("$PYTHON" -m pybind11 --cmakedir)" -DCMAKE_CXX_FLAGS="$FLAGS" >/dev/null
cmake --build "$BUILD/cmake"

# A copy of the package with the instrumented module, which every process of a test finds first: before
# an editable install's, and before the source tree that it may be started in.
rm -rf "$BUILD/package"
mkdir -p "$BUILD/package"
cp -r fasttrain "$BUILD/package/"
cp "$BUILD"/cmake/_C*.so "$BUILD/package/fasttrain/"
cat >"$BUILD/package/sitecustomize.py" <<'EOF'
import sys
from importlib.machinery import PathFinder
from pathlib import Path


class Instrumented:
    """Finds the package beside this file, whatever else is on the path."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] != "fasttrain":
            return None
        return PathFinder.find_spec(name, path or [str(Path(__file__).parent)])


sys.meta_path.insert(0, Instrumented)
EOF

export PYTHONPATH="$BUILD/package"
export LD_PRELOAD="$("$CXX" -print-file-name=libasan.so) $("$CXX" -print-file-name=libubsan.so)"
export ASAN_OPTIONS="detect_leaks=0:halt_on_error=1:abort_on_error=0"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"

"$PYTHON" - <<'EOF'
import os
import subprocess
import sys

import fasttrain._C

found = fasttrain._C.__file__
assert found.startswith(os.environ["PYTHONPATH"] + os.sep), found
read_past_the_end = """
import torch
from fasttrain import native
grad = torch.ones(1000)
native.module().gradient_sum("{}", grad.data_ptr(), 1001, native.module().Dtype.float32, 1)
"""
for path in fasttrain._C.cpu_paths():
    done = subprocess.run(
        [sys.executable, "-c", read_past_the_end.format(path)], capture_output=True, text=True
    )
    assert "heap-buffer-overflow" in done.stderr, f"{path}: nothing was caught\n{done.stderr}"
    print(f"[sanitize] {path}: a read past the end is caught")
EOF

# torch.compile would run its compilers under the sanitizer too, for many minutes.
[[ $# -gt 0 ]] || set -- tests/core tests/logging tests/optim tests/runner tests/test_native.py \
    --deselect tests/core/fused/test_compile.py::test_a_model_compiled_to_machine_code
exec "$PYTHON" -m pytest -q -p no:cacheprovider --timeout=0 "$@"
