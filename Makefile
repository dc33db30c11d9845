# One command each on a fresh machine: needs git, make, a C++ compiler and Python >= 3.10.
# `make help` lists the targets. An nvcc on the PATH adds the CUDA backend.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
BENCH_BIN := $(BENCH_VENV)/bin
CUDA_ARCH ?= 90
PIP := -m pip --disable-pip-version-check install -qq --constraint constraints.txt
# deepspeed asks torch how to build itself, so it must see this environment.
PEERS := pytorch-ignite accelerate lightning deepspeed
BUILD_TOOLS := scikit-build-core pybind11 cmake ninja
INSTALL := --no-build-isolation
# FASTTRAIN_CUDA=OFF|ON|AUTO and CMAKE_CUDA_ARCHITECTURES=90 reach CMake from the command line.
INSTALL += $(foreach v,FASTTRAIN_CUDA CMAKE_CUDA_ARCHITECTURES,$(if $($(v)),--config-settings=cmake.define.$(v)="$($(v))"))
SOURCES := fasttrain tests examples benchmarks
CPP_SOURCES := $(wildcard csrc/*.cpp csrc/*.h csrc/*.cu csrc/*.cuh)
NATIVE_SOURCES := CMakeLists.txt $(CPP_SOURCES)
# An editable install knows the packages that were there when it was made.
PACKAGES := $(wildcard fasttrain/*/__init__.py fasttrain/*/*/__init__.py fasttrain/*/*/*/__init__.py)

CONFIG ?= examples/digits/digits_cnn.py
WORK_DIR ?= work_dirs/$(basename $(notdir $(CONFIG)))
RESUME ?=
# The digits' network is so small that a second thread only costs.
ONE_THREAD := $(if $(filter examples/digits/%,$(CONFIG)),OMP_NUM_THREADS=1)
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help build train test test-fallback bench gpu-check lint format cuda torture sanitize clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---------------------------------------------------------------- environments and build
# torch goes in by a call of its own: the pin alone decides which build of it is taken.
define make_environment
	@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	@$(1)/bin/python $(PIP) torch
	@$(1)/bin/python $(PIP) $(BUILD_TOOLS)
	@touch $@
endef

$(VENV)/.environment: constraints.txt
	@echo "[make] environment in $(VENV)"
	$(call make_environment,$(VENV))

$(BENCH_VENV)/.environment: constraints.txt
	@echo "[make] environment of the benchmarks in $(BENCH_VENV)"
	$(call make_environment,$(BENCH_VENV))

$(VENV)/.built: $(VENV)/.environment pyproject.toml $(NATIVE_SOURCES) $(PACKAGES)
	@echo "[make] install and build in $(VENV)"
	@$(BIN)/python $(PIP) $(INSTALL) --editable ".[examples,test,lint]"
	@touch $@

$(BENCH_VENV)/.built: $(BENCH_VENV)/.environment pyproject.toml $(NATIVE_SOURCES) $(PACKAGES)
	@echo "[make] install and build in $(BENCH_VENV)"
	@$(BENCH_BIN)/python $(PIP) $(INSTALL) --config-settings=build-dir=build/bench --editable ".[bench]"
	@for peer in $(PEERS); do $(BENCH_BIN)/python $(PIP) --no-build-isolation $$peer \
		|| echo "[make] peer $$peer does not install here: left out"; done
	@touch $@

build: $(VENV)/.built ## Create .venv, install, and build the native module.

# ---------------------------------------------------------------- the main job
train: build ## Train the digits example, test it, plot the curves (RESUME=1 continues).
	@$(ONE_THREAD) $(BIN)/fasttrain train $(CONFIG) --work-dir $(WORK_DIR) $(if $(RESUME),--resume) --test --plot

# ---------------------------------------------------------------- checks
test: build test-fallback ## Run the test suite, with the native module and without it.
	@echo "[make] tests with the native module"
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fallback: build ## Run the tests that meet native code with the pure-torch fallbacks.
	@echo "[make] tests without the native module (FASTTRAIN_NATIVE=0)"
	@FASTTRAIN_NATIVE=0 $(BIN)/python -m pytest -q $(PYTEST_ARGS) $(wildcard $(FALLBACK_TESTS))

# The rooms whose code asks for a native capability.
FALLBACK_TESTS := tests/core tests/optim tests/logging tests/test_native.py

lint: build ## Check style, types and C++ format.
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run --Werror $(CPP_SOURCES)

format: build ## Apply the formatters.
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/clang-format -i $(CPP_SOURCES)

cuda: $(VENV)/.environment ## Compile the CUDA sources for CUDA_ARCH (default 90); needs an nvcc.
	@if ! command -v nvcc >/dev/null; then echo "[make] no nvcc: CUDA sources not compiled"; exit 0; fi; \
	echo "[make] CUDA sources for sm_$(CUDA_ARCH)"; \
	$(BIN)/cmake -S . -B build/cuda -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
		-DCMAKE_BUILD_TYPE=Release -DFASTTRAIN_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCH) \
		-DPython_EXECUTABLE=$(abspath $(BIN))/python \
		-Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir) >build/cuda.log 2>&1 \
		|| { cat build/cuda.log; exit 1; }; \
	$(BIN)/cmake --build build/cuda

torture: build ## Kill, corrupt and fill up disks under checkpoints, for minutes.
	@set -e; for script in tests/torture_*.py; do $(BIN)/python $$script; done

sanitize: $(VENV)/.environment ## Run the native code under AddressSanitizer and UBSan.
	@bash tests/sanitize.sh

bench: $(BENCH_VENV)/.built ## Run the benchmarks beside their peers (REPORT=1 writes dated reports).
	@for script in benchmarks/bench_*.py; do \
		$(BENCH_BIN)/python $$script $(if $(REPORT),--report) $(if $(QUICK),--quick) \
			|| missed="$$missed $$script"; done; \
	[ -z "$$missed" ] || echo "[make] broken, or below the figure they aim at:$$missed"
	@$(BENCH_BIN)/python -m pytest -q benchmarks

gpu-check: build ## Run everything that needs a GPU; see benchmarks/gpu_check.sh.
	@PYTHON=$(abspath $(BIN))/python bash benchmarks/gpu_check.sh

clean: ## Remove environments, builds and caches; work folders stay.
	rm -rf $(VENV) $(BENCH_VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
