#!/usr/bin/env bash
# Everything that needs a GPU, in one go: build the CUDA backend, test it, measure it.
#
#   benchmarks/gpu_check.sh                            all of it
#   STAGES="build tests" benchmarks/gpu_check.sh       some of it
#   DRY_RUN=1 benchmarks/gpu_check.sh                  without a GPU: what needs one is skipped
#
# PYTHON (default python3) must have torch with CUDA, scikit-build-core, pybind11 and pytest; nothing
# is downloaded. Reports and logs go to $OUT (default benchmarks/out). Each stage has a time limit and
# none stops the next; what the budget (BUDGET_S, 570 seconds) leaves no time for is left out, so what
# matters most comes first. The last things printed are the figures and a table of the stages.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/out}
STAGES=${STAGES:-build doctor tests step checkpoint train memcheck suite engine history loop}
BUDGET_S=${BUDGET_S:-570}
DRY_RUN=${DRY_RUN:-}
export PYTHONUNBUFFERED=1
mkdir -p "$OUT"

if [ -z "$DRY_RUN" ] &&
    ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "[gpu-check] torch of $PYTHON sees no CUDA device: nothing to check here"
    exit 0
fi
if [ -n "$DRY_RUN" ]; then
    ARCH=${CMAKE_CUDA_ARCHITECTURES:-90}
else
    ARCH=${CMAKE_CUDA_ARCHITECTURES:-$("$PYTHON" -c \
        'import torch; print("%d%d" % torch.cuda.get_device_capability())')}
fi

failed=()
rows=()
stage() { # stage NAME LIMIT_S COMMAND...: run it, keep its log, remember how it came out
    local name=$1 limit_s=$2 start=$SECONDS result=passed status log="$OUT/$1.log"
    shift 2
    [[ " $STAGES " == *" $name "* ]] || return 0
    if ((limit_s > BUDGET_S - SECONDS)); then
        limit_s=$((BUDGET_S - SECONDS))
    fi
    if ((limit_s < 15)); then
        rows+=("$(printf '| %-10s | %-8s |        |' "$name" "no time")")
        return 0
    fi
    echo "[gpu-check] $name (at most $limit_s s)"
    timeout --kill-after=5 "$limit_s" "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    if [ "$status" -ne 0 ]; then
        result=FAILED
        [ "$status" -ne 124 ] && [ "$status" -ne 137 ] || result="TOO LONG"
        failed+=("$name")
    fi
    rows+=("$(printf '| %-10s | %-8s | %4d s | %s' "$name" "$result" $((SECONDS - start)) \
        "$(grep -E '[0-9]+ (passed|failed|skipped)|test accuracy|ERROR SUMMARY' "$log" | tail -n 1 |
            cut -c1-90)")")
}

finish() { # the figures of all logs, then the table
    trap - EXIT TERM INT
    echo
    grep -hE 'of the .* GB/s of copies|^Host time|^Stall|is left out|no kernels|^(FAILED|ERROR) ' \
        "$OUT"/*.log | cut -c1-400
    for title in 'host time of a whole step' 'GPU: saves of'; do
        grep -hA 12 "^## .*$title" "$OUT"/*.log | grep -E '^(##|\|)'
    done
    printf '\n| stage      | result   | time   | summary\n'
    printf '%s\n' ${rows[@]+"${rows[@]}"}
    if [ ${#failed[@]} -ne 0 ]; then
        echo "[gpu-check] FAILED: ${failed[*]}"
        exit 1
    fi
    echo "[gpu-check] all stages passed; logs and reports in $OUT"
    exit 0
}
trap finish EXIT TERM INT
rm -f "$OUT"/*.log

# A virtual environment of its own that sees PYTHON's packages; the source tree stays as it is.
venv=${GPU_CHECK_VENV:-build/gpu-venv}
site='import sysconfig; print(sysconfig.get_paths()["purelib"])'
build() {
    # Without pip, which comes from PYTHON as all other packages: a venv does not see those of the
    # venv that it was made from.
    "$PYTHON" -m venv --without-pip --system-site-packages "$venv" &&
        "$PYTHON" -c "$site" >"$("$venv/bin/python" -c "$site")/base.pth" &&
        "$venv/bin/python" -m pip install --no-index --no-build-isolation --no-deps \
            --config-settings=build-dir=build/gpu --config-settings=cmake.define.FASTTRAIN_CUDA=ON \
            --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES="$ARCH" --editable .
}
export -f build
export PYTHON venv site ARCH
stage build 150 bash -c build
run="$venv/bin/python"
[ -x "$run" ] || run=$PYTHON

# Other versions of torch and Python warn of other things: only our own warnings are errors here.
lenient=(-p no:cacheprovider --continue-on-collection-errors -W ignore::DeprecationWarning
    -W ignore::FutureWarning --timeout=60)
native_rooms=(tests/core/fused/test_gpu.py -k "same_as_on_the_cpu or masters or unaligned")
not_gpu=(-m "not gpu" --maxfail=30)

usable='from fasttrain import native; assert native.cuda_usable(), native.cuda_problem()'
stage doctor 60 bash -c '"$0" -m fasttrain doctor && { [ -n "$2" ] || "$0" -c "$1"; }' \
    "$run" "$usable" "$DRY_RUN"
stage tests 150 "$run" -m pytest -q -m gpu "${lenient[@]}" --tb=short
stage step 120 "$run" benchmarks/bench_step.py --report "$OUT"
stage checkpoint 120 "$run" benchmarks/bench_checkpoint.py --gpu --quick --report "$OUT"
stage train 40 "$run" -m fasttrain train examples/digits/digits_cnn.py \
    --work-dir "$OUT/digits_cnn" --test
if command -v compute-sanitizer >/dev/null; then
    stage memcheck 120 compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 1 \
        "$run" -m pytest -q "${lenient[@]}" "${native_rooms[@]}"
fi
# The rest of the tests where the Runner takes the GPU by itself.
stage suite 150 "$run" -m pytest -q "${lenient[@]}" "${not_gpu[@]}" --tb=line \
    tests/core tests/runner tests/hooks tests/optim tests/engine
stage engine 45 "$run" benchmarks/bench_engine.py --quick --report "$OUT"
stage history 45 "$run" benchmarks/bench_history.py --quick --report "$OUT"
stage loop 45 "$run" benchmarks/bench_loop.py --quick --report "$OUT"
