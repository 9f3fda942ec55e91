# make demo: builds its own environment, runs the main job. make test: runs the tests.
.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint real real-data services system-services install-services train calibrate benchmark clean

# Python 3.11 where there are several: the pinned torch has its lightest build there.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$p" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

help:
	@echo "make demo      run the main job on a simulated world (first time: installs into $(VENV))"
	@echo "make test      run the tests"
	@echo "make test-all  the tests with every long check"
	@echo "make lint      style, types and the direction of imports"
	@echo "make real      the main job on real data: REAL=folder (see tools/real_data.py)"
	@echo "make services  a STAC API, nginx and S3 over a simulated world, until Ctrl-C (as root it installs them)"
	@echo "make train     train the shipped models again (an hour and a half on one core)"
	@echo "make benchmark every model on every real set (REAL=folder) and in the simulated world: two hours and more;"
	@echo "               overwrites docs/benchmark.md"
	@echo "make calibrate measure the shipped area intervals again; overwrites glaciercube/change/calibrations.json"

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "glaciercube needs Python 3.11 or newer with venv: install it, or set PYTHON=" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

# Torch first and pinned: an unpinned resolver may fetch gigabytes of CUDA packages.
$(VENV)/.runs: $(VENV)/.created pyproject.toml constraints.txt
	@echo "installing glaciercube into $(VENV)"
	$(PIP) torch
	$(PIP) --editable '.[view]'
	@touch $@

$(VENV)/.develops: $(VENV)/.runs
	@echo "installing the tools for tests into $(VENV)"
	$(PIP) --editable '.[dev]'
	@# It asks for pandas before 3 and works with 3 (tests/test_backends.py); pandas must not go back for it.
	$(PIP) --no-deps stackstac
	@touch $@

demo: $(VENV)/.runs
	$(BIN)/glaciercube demo

# Files of tests side by side, in order: the longest ones come neither last nor together. Each has one thread for torch
# and BLAS: more of them would wait for each other.
TOGETHER := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: $(VENV)/.develops
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TOGETHER)

test-all: $(VENV)/.develops
	GLACIERCUBE_FULL=1 $(BIN)/python -m pytest --timeout 3600

lint: $(VENV)/.develops
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Where the real data of the tests lie.
REAL ?= ../shared/data
real-data:
	@test -d "$(REAL)" || { echo "no real data are at $(REAL): give their folder, REAL=folder; tools/real_data.py and \
	docs/benchmark.md say what it holds" >&2; exit 1; }

real: real-data $(VENV)/.develops
	$(BIN)/python tools/real_data.py "$(REAL)"

# PostgreSQL, PostGIS, nginx and SLURM are the system's; the rest is Python's.
system-services:
	tests/services/install.sh

# All that tests need at once: what `.develops` installs is a part of it.
$(VENV)/.serves: $(VENV)/.runs tests/services/install.sh
	tests/services/install.sh
	@echo "installing the tools and the servers for tests into $(VENV)"
	$(PIP) --editable '.[dev,services]'
	$(PIP) --no-deps stackstac
	@touch $(VENV)/.develops $@

install-services: $(VENV)/.serves

services: $(VENV)/.serves
	PYTHONPATH=tests $(BIN)/python -m services

# Beside the package, where checkpoints stay until both models are whole: the second begins with the first as shipped.
SHIPPED := fusion-unet fusion-unet-time
train: $(VENV)/.runs
	set -e; for name in $(SHIPPED); do \
		$(BIN)/glaciercube train glaciercube/training/recipes/$$name.yaml --out out/weights/$$name --cache out/chips; \
		rm -rf glaciercube/models/weights/$$name; \
		cp -R out/weights/$$name glaciercube/models/weights/$$name; \
	done
	rm -rf out/weights

benchmark: real-data $(VENV)/.develops
	$(BIN)/python -m glaciercube.bench.table --data "$(REAL)" --out out/benchmark --docs docs/benchmark.md

calibrate: $(VENV)/.runs
	$(BIN)/python -m glaciercube.training.calibrate_area --out glaciercube/change/calibrations.json --cache out/chips

clean:
	rm -rf $(VENV) demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
