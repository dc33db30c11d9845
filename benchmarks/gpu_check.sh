#!/usr/bin/env bash
# Everything that needs a GPU, in one go: build the CUDA backend, test it, run the benchmarks.
#
#   benchmarks/gpu_check.sh              all of it
#   STAGES="build tests" benchmarks/gpu_check.sh
#   FULL=1 BENCH_LIMIT_S=400 STAGES="build benchmarks" benchmarks/gpu_check.sh    long benchmarks
#
# PYTHON (default python3) must have torch with CUDA, scikit-build-core, pybind11 and pytest; nothing
# is downloaded. Reports and logs go to $OUT (default benchmarks/out). Every stage has a time limit, all
# of them together stay under ten minutes; the last thing printed is a table of what came out.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/out}
STAGES=${STAGES:-build tests train benchmarks}
export PYTHONUNBUFFERED=1
mkdir -p "$OUT"

if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "[gpu-check] torch of $PYTHON sees no CUDA device: nothing to check here"
    exit 0
fi
ARCH=${CMAKE_CUDA_ARCHITECTURES:-$("$PYTHON" -c \
    'import torch; print("%d%d" % torch.cuda.get_device_capability())')}

failed=()
rows=()
stage() { # stage NAME LIMIT_S COMMAND...: run it, keep its log, remember how it came out
    local name=$1 limit_s=$2 start=$SECONDS result=passed
    shift 2
    echo "[gpu-check] $name"
    if ! timeout "$limit_s" "$@" 2>&1 | tee "$OUT/$name.log"; then
        result=FAILED
        failed+=("$name")
    fi
    rows+=("$(printf '| %-16s | %-6s | %6d s | %s' "$name" "$result" $((SECONDS - start)) \
        "$(grep -E '[0-9]+ (passed|failed)|test accuracy' "$OUT/$name.log" | tail -n 1)")")
}
wanted() { [[ " $STAGES " == *" $1 "* ]]; }

# A virtual environment of its own that sees PYTHON's packages; the source tree stays as it is.
venv=${GPU_CHECK_VENV:-build/gpu-venv}
if wanted build; then
    "$PYTHON" -m venv --system-site-packages "$venv"
    # A venv does not see the packages of the venv it was made from.
    "$PYTHON" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' \
        >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/base.pth"
    stage build 120 "$venv/bin/python" -m pip install --no-index --no-build-isolation --no-deps \
        --config-settings=build-dir=build/gpu --config-settings=cmake.define.FASTTRAIN_CUDA=ON \
        --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES="$ARCH" --editable .
fi
run="$venv/bin/python"
[ -x "$run" ] || run=$PYTHON

stage doctor 30 "$run" -m fasttrain doctor
if wanted tests; then
    stage tests 120 "$run" -m pytest -q -m gpu -p no:cacheprovider
fi
if wanted train; then
    stage train 40 "$run" -m fasttrain train examples/digits/digits_cnn.py \
        --work-dir "$OUT/digits_cnn" --test
fi
if wanted benchmarks; then
    for script in benchmarks/bench_*.py; do
        stage "$(basename "$script" .py)" "${BENCH_LIMIT_S:-45}" "$run" "$script" \
            --report "$OUT" $([ -n "${FULL:-}" ] || echo --quick)
    done
fi

printf '\n| stage            | result | time     | summary\n'
printf '%s\n' "${rows[@]}"
if [ ${#failed[@]} -ne 0 ]; then
    echo "[gpu-check] FAILED: ${failed[*]}"
    exit 1
fi
echo "[gpu-check] all stages passed; logs and reports in $OUT"
