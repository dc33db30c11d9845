#!/usr/bin/env bash
# Everything that needs a GPU, in one go: build the CUDA backend, test it, run the benchmarks.
#
#   benchmarks/gpu_check.sh              all of it
#   STAGES="build tests" benchmarks/gpu_check.sh
#   QUICK=1 benchmarks/gpu_check.sh      short benchmarks
#
# PYTHON (default python3) must have torch with CUDA, scikit-build-core, pybind11 and pytest; nothing
# is downloaded. Reports and logs go to $OUT (default benchmarks/out).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/out}
STAGES=${STAGES:-build tests train benchmarks}
QUICK=${QUICK:-}
export PYTHONUNBUFFERED=1
mkdir -p "$OUT"

if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "[gpu-check] torch of $PYTHON sees no CUDA device: nothing to check here"
    exit 0
fi
ARCH=${CMAKE_CUDA_ARCHITECTURES:-$("$PYTHON" -c \
    'import torch; print("%d%d" % torch.cuda.get_device_capability())')}

failed=()
stage() { # stage NAME COMMAND...: run it when asked for, keep its log, remember a failure
    local name=$1 start=$SECONDS
    shift
    echo "[gpu-check] $name"
    if "$@" 2>&1 | tee "$OUT/$name.log"; then
        echo "[gpu-check] $name: done in $((SECONDS - start)) s"
    else
        echo "[gpu-check] $name: FAILED"
        failed+=("$name")
    fi
}
wanted() { [[ " $STAGES " == *" $1 "* ]]; }

# A virtual environment of its own that sees PYTHON's packages; the source tree stays as it is.
venv=${GPU_CHECK_VENV:-build/gpu-venv}
if wanted build; then
    "$PYTHON" -m venv --system-site-packages "$venv"
    # A venv does not see the packages of the venv it was made from.
    "$PYTHON" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' \
        >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/base.pth"
    stage build "$venv/bin/python" -m pip install --no-index --no-build-isolation --no-deps \
        --config-settings=build-dir=build/gpu --config-settings=cmake.define.FASTTRAIN_CUDA=ON \
        --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES="$ARCH" --editable .
fi
run="$venv/bin/python"
[ -x "$run" ] || run=$PYTHON

stage doctor "$run" -m fasttrain doctor
if wanted tests; then
    stage tests "$run" -m pytest -q -m gpu -p no:cacheprovider
fi
if wanted train; then
    stage train "$run" -m fasttrain train examples/digits/digits_cnn.py \
        --work-dir "$OUT/digits_cnn" --test
fi
if wanted benchmarks; then
    for script in benchmarks/bench_*.py; do
        stage "$(basename "$script" .py)" "$run" "$script" --report "$OUT" ${QUICK:+--quick}
    done
fi

if [ ${#failed[@]} -ne 0 ]; then
    echo "[gpu-check] FAILED: ${failed[*]}"
    exit 1
fi
echo "[gpu-check] all stages passed; logs and reports in $OUT"
