# ioreq-engine.  `make run` and `make test` need Python 3.11 or newer with headers and venv, a C compiler and make (Debian:
# python3-dev python3-venv gcc make); everything else they set up themselves in .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
SOURCES := $(shell find engine -name '*.pyx' -o -name '*.pxd' -o -name '*.h' 2>/dev/null)
BUILT  := build/.built-release
NPROC  := $(shell nproc 2>/dev/null || echo 1)
ARGS   ?=

# What the build, the reports, the tests and the checks need, as pyproject.toml has it.
define REQUIREMENTS
import tomllib
with open("pyproject.toml", "rb") as f:
    t = tomllib.load(f)
p = t["project"]
extras = [d for name in ("report", "study", "cluster", "test", "dev") for d in p["optional-dependencies"][name]]
print(*(d for d in t["build-system"]["requires"] + p["dependencies"] + extras if not d.startswith(p["name"])), sep="\n")
endef
export REQUIREMENTS

ACCESSES ?= 1000000

.PHONY: run test diff fuzz bench build check format annotate checked asan ubsan stress clean dist help

help:
	@echo "make run     replay recorded boots over every path, draw the report"
	@echo "make test    the test suite            make bench   the performance suite"
	@echo "make diff    every part against an installed QEMU, a minute"
	@echo "make fuzz    random accesses to every part and board: ACCESSES=10000000, ARGS=\"PART --seed 2\""
	@echo "make check   lint, types, stubs        make dist    sdist and wheel"
	@echo "make checked asan ubsan                the suites on checked and sanitizer builds"
	@echo "make annotate                          Cython's annotated C of every module"

run: $(BUILT)
	$(BIN)/engine run $(ARGS)

test: $(BUILT)
	$(BIN)/python -m pytest -n $(NPROC) --dist loadgroup -m "not stress and not bench" $(ARGS) tests
	$(BIN)/python -m pytest -m "stress and not bench" $(ARGS) tests

diff: $(BUILT)
	$(BIN)/engine diff --all --quick $(ARGS)

fuzz: $(BUILT)
	PYTHONPATH=tests $(BIN)/python -m fuzz --accesses $(ACCESSES) $(ARGS)

bench: $(BUILT)
	$(BIN)/python -m pytest -q perf/benches --benchmark-only $(ARGS)

build: $(BUILT)

check: $(BUILT)
	$(BIN)/python -m ruff check engine perf tests tools setup.py
	$(BIN)/python -m ruff format --check engine perf tests tools setup.py
	$(BIN)/python -m mypy

format:
	$(BIN)/python -m ruff format engine perf tests setup.py

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing; install Python 3.11 or newer (Debian: python3)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; set PYTHON=python3.x"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: Python's venv is missing (Debian: apt install python3-venv)"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' || { echo "make: Python.h is missing (Debian: apt install python3-dev)"; exit 1; }
	@command -v $${CC:-cc} >/dev/null || command -v gcc >/dev/null || { echo "make: no C compiler (Debian: apt install gcc)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c "$$REQUIREMENTS" > $(VENV)/requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -r $(VENV)/requirements.txt
	@touch $@

$(BUILT): $(STAMP) setup.py $(SOURCES)
	@mkdir -p build
	$(BIN)/python setup.py -q build_ext --inplace -j $(NPROC)
	@# The modules are there: the installation has nothing to compile.
	ENGINE_ONLY=nothing $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

annotate: $(STAMP)
	ENGINE_BUILD=annotate $(BIN)/python setup.py -q build_ext --build-lib build/annotate --build-temp build/annotate-temp
	@echo "annotated C: build/cython-annotate/engine/**/*.html"

checked asan ubsan: $(STAMP)
	ENGINE_BUILD=$@ $(BIN)/python setup.py -q build_ext --build-lib build/$@ --build-temp build/$@-temp -j $(NPROC)
	$(BIN)/python -m tests.run_build $@ $(ARGS)

stress: $(BUILT)
	$(BIN)/python -m pytest -m stress $(ARGS) tests

dist: $(STAMP)
	$(BIN)/python -m pip install -q build
	$(BIN)/python -m build

clean:
	rm -rf build dist *.egg-info
	find engine -name '*.so' -delete
