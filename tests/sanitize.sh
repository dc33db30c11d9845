#!/usr/bin/env bash
# The native code under AddressSanitizer and UBSan: builds a copy of the module and runs its tests.
#
#   tests/sanitize.sh [TEST ...]     default: the tests of the parts that have native code
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
BUILD=${BUILD:-build/sanitize}
CXX=${CXX:-g++}
FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g"

cmake -S . -B "$BUILD/cmake" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DFASTTRAIN_CUDA=OFF \
    -DPython_EXECUTABLE="$(command -v "$PYTHON")" -DCMAKE_CXX_COMPILER="$CXX" \
    -Dpybind11_DIR="$("$PYTHON" -m pybind11 --cmakedir)" -DCMAKE_CXX_FLAGS="$FLAGS" >/dev/null
cmake --build "$BUILD/cmake"

# A copy of the package beside the instrumented module, found before the installed one.
rm -rf "$BUILD/package"
mkdir -p "$BUILD/package"
cp -r fasttrain "$BUILD/package/"
cp "$BUILD"/cmake/_C*.so "$BUILD/package/fasttrain/"

[[ $# -gt 0 ]] || set -- tests/core/fused tests/core/test_history.py tests/core/checkpoint
export LD_PRELOAD="$("$CXX" -print-file-name=libasan.so) $("$CXX" -print-file-name=libubsan.so)"
export ASAN_OPTIONS="detect_leaks=0:halt_on_error=1" # Python itself never frees everything
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
exec "$PYTHON" - "$BUILD/package" "$@" <<'EOF'
import os
import sys

package, *tests = sys.argv[1:]
sys.meta_path[:] = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]
sys.path.insert(0, os.path.abspath(package))
import pytest  # noqa: E402

import fasttrain._C  # noqa: E402

assert fasttrain._C.__file__.startswith(os.path.abspath(package)), fasttrain._C.__file__
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "--timeout=0", *tests]))
EOF
