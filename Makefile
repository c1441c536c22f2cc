# Every target sets up what it needs. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPAT := .compat-venv
# pip's packages bring CMake and Ninja along
TOOLS = PATH="$(CURDIR)/$(BIN):$$PATH"
# without ONNX Runtime's headers (ONNXRUNTIME_INCLUDE_DIR) its example cannot be looked at
TIDIED = $(filter-out $(if $(ONNXRUNTIME_INCLUDE_DIR),,%/detect_onnxruntime.cpp),\
  $(wildcard $(foreach room,src selftest examples,cpp_postprocess/$(room)/*.cpp)))
NCNN = $(TOOLS) $(BIN)/python cpp_postprocess/ncnn/build_ncnn.py
# Extra words for pip, for instance where to find PyTorch's CPU build: make demo PIP_ARGS="..."
PIP_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check tidy compat ncnn arm docs bench peers clean

help:  ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

demo: $(STAMP)  ## export, convert, verify and evaluate the trained demo detector
	$(BIN)/mbv3ssd-deploy demo
	cd demo && ../$(BIN)/mbv3ssd-deploy export model.pth
	cd demo && ../$(BIN)/mbv3ssd-deploy to-ncnn
	cd demo && ../$(BIN)/mbv3ssd-deploy verify --images scenes/JPEGImages
	cd demo && ../$(BIN)/mbv3ssd-deploy eval --data voc:scenes --max-drop 0.5

test: $(STAMP)  ## run the tests that take a few minutes (what a change needs)
	$(TOOLS) $(BIN)/python -m pytest -q -n auto --dist loadfile -m "not slow"

test-all: test  ## run all tests; ncnn is built first, once, for this machine and for ARM
	@$(NCNN) >/dev/null || echo "make: skipping the tests of the C++ examples"
	@$(NCNN) --target aarch64 >/dev/null && $(NCNN) --target aarch64-older >/dev/null \
	  || echo "make: skipping the tests for ARM"
	$(TOOLS) $(BIN)/python -m pytest -q -n auto --dist loadfile -m slow

check: $(STAMP)  ## format, lint, types, then the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

tidy: $(STAMP)  ## clang-tidy on all C++ except the tests (minutes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) clang-tidy==23.1.4
	$(BIN)/clang-tidy --quiet --warnings-as-errors='*' $(TIDIED) -- \
	  -std=c++17 -DMBV3SSD_VERSION='""' $(foreach room,include src examples,-Icpp_postprocess/$(room)) \
	  -isystem "$$($(NCNN))/../../../include/ncnn" $(addprefix -isystem ,$(ONNXRUNTIME_INCLUDE_DIR))

compat: $(STAMP) $(COMPAT)/.installed  ## the same ncnn files in the oldest and the newest tested ncnn
	$(BIN)/python tests/compat/run.py --old-python $(COMPAT)/bin/python

ncnn: $(STAMP)  ## build the part of ncnn that the C++ examples need (once, kept in the user's cache)
	$(NCNN)

arm: $(STAMP)  ## cross-build ncnn and all C++ for 64-bit ARM, and test it under qemu
	$(NCNN) --target aarch64
	$(NCNN) --target aarch64-older
	$(TOOLS) STRICT=1 $(BIN)/python -m pytest -q tests/arm

docs: $(STAMP)  ## write the generated pages again (docs/cli.md, backbones.md, formats/ncnn-layers.md)
	$(BIN)/python docs/generate.py

bench: $(STAMP)  ## measure, and print the tables of docs/results.md
	$(BIN)/python benchmarks/main_job.py

peers: $(STAMP)  ## our ncnn graphs beside the hand-edited one, ncnnoptimize's rewrites and pnnx
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(PIP_ARGS) -c constraints.txt pnnx
	$(BIN)/python benchmarks/ncnn_peers.py

clean:  ## take away what make has made
	rm -rf $(VENV) $(COMPAT) demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing: install Python 3.11 or newer, or say make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11: say make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: Python's venv module is missing: install it (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]' \
	  || { echo "make: the packages could not be installed (see above); no network, or no wheel for this Python?"; exit 1; }
	@touch $@

$(COMPAT)/.installed: tests/compat/requirements.txt
	$(PYTHON) -m venv $(COMPAT)
	$(COMPAT)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r $< \
	  || { echo "make: the oldest tested ncnn could not be installed (see above)"; exit 1; }
	@touch $@
