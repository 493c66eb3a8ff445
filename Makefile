# Every target sets up what it needs: a virtual environment with the versions of constraints.txt.
# The environment's stamp bears a hash of what it was made from, so that nothing is done twice.

PYTHON ?= python3
VENV := .venv
INPUTS := pyproject.toml setup.py constraints.txt
# What else is installed: groups of pyproject.toml's optional dependencies.
EXTRAS ?= dev
# DeepSpeed's operators are compiled when used: told that this is a CPU, its build asks for no CUDA
# toolkit, and finds a GPU all the same when it runs.
DEEPSPEED_BUILD ?= DS_ACCELERATOR=cpu DS_BUILD_OPS=0
STAMP := $(VENV)/installed-$(shell { cat $(INPUTS); echo '$(EXTRAS)'; } | sha256sum | cut -c1-16)
PIP := $(VENV)/bin/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt
PYTEST := $(VENV)/bin/python -m pytest

# Tools such as ninja are found as if the environment were active.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Tests start processes of their own: one thread each, or they fight over the cores.
test marked torture: export OMP_NUM_THREADS ?= 1

.PHONY: help venv demo test check bench marked slow slurm gpu torture

help:
	@echo "make demo     pretrain on real data, kill, resume, evaluate, export, report"
	@echo "make test     the fast tests"
	@echo "make check    format, lint, types, imports between rooms, images"
	@echo "make bench    benchmarks; AREA=startup runs one"
	@echo "make slow     tests that take minutes        make slurm    tests on a Slurm cluster"
	@echo "make gpu      tests that need a GPU          make torture  hours of kills and scale"
	@echo "make venv     only set up $(VENV)"

venv: $(STAMP)

# DeepSpeed comes as source whose build imports torch: so torch first, and no isolated build, which
# would fetch a torch of its own.
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python must be 3.11 or newer, but $(PYTHON) is not: make PYTHON=python3.12" >&2; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || \
		{ echo "a C++ compiler must be installed (package g++), but is not" >&2; exit 1; }
	@echo "==> setting up $(VENV) (once, some minutes; changes of pyproject.toml repeat it)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/installed-*
	@echo "==> 1/2 torch"
	@$(PIP) setuptools wheel torch
	@echo "==> 2/2 everything else"
	@$(DEEPSPEED_BUILD) $(PIP) --no-build-isolation -e '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)
	@$(VENV)/bin/ssl-launch demo

test: $(STAMP)
	@$(PYTEST) -m 'not slow and not slurm and not gpu and not torture' --durations=20

check: $(STAMP)
	@echo "==> ruff"
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@echo "==> mypy --strict"
	@$(VENV)/bin/mypy ssl_scale data_tools launch
	@echo "==> import-linter"
	@$(VENV)/bin/lint-imports --no-cache
	@echo "==> hadolint"
	@$(VENV)/bin/hadolint docker/Dockerfile*

bench: $(STAMP)
	@$(VENV)/bin/python -m tests.benchmarks.run $(AREA)

# pytest's exit code 5 says that no test bears the marker.
marked: $(STAMP)
	@$(PYTEST) -m '($(MARKERS)) and not torture' --durations=20 || [ $$? -eq 5 ]

slow slurm gpu:
	@$(MAKE) --no-print-directory marked MARKERS=$@

torture: $(STAMP)
	@$(PYTEST) -m torture --durations=0 --verbose || [ $$? -eq 5 ]
