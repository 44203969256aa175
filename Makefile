# Operators:  make venv: .venv/bin/mcencrypt    make demo: what it does    make deb, make rpm: packages in dist/
# Developers: make dev: .venv-dev, the tree itself and all tools    make check, test, bench: see CONTRIBUTING.md
#             make dist: wheel and sdist in dist/    make clean: all of it gone
# On Debian, as root, each installs what it needs and is missing; otherwise it says what to install.

PYTHON ?= python3
# The interpreter that the packages will run with.
DEB_PYTHON ?= /usr/bin/python3
RPM_PYTHON ?= /usr/bin/python3
# Two, so that no test run turns what an operator's service runs from into the tree itself.
VENV := .venv
INSTALLED := $(VENV)/.installed
SOURCES := $(shell find src/mcencrypt iptables -type f ! -name '*.pyc')
DEV := .venv-dev
BIN := $(DEV)/bin
STAMP := $(DEV)/.installed
# Options for pytest and for the benchmark, and a file that gets pytest's exit status (make's own is always 2).
TESTS ?= tests
BENCH ?=
PYTEST_STATUS ?= /dev/null
# Tests of what is compiled, which are run a second time with the sources; and how. Without a list of TESTS only.
BOTH_WAYS := tests/unit/core tests/unit/kernel/test_queue.py tests/unit/daemon/test_datapath.py tests/property
SOURCES_ALONE = MCENCRYPT_INTERPRETED=1 $(BIN)/python -m pytest -q -p no:cacheprovider $(BOTH_WAYS)
# Tests at a time. Most wait for others rather than for a core. 0: one after the other, in pytest's own process.
WORKERS ?= $(shell expr $$(nproc) \* 5 / 2)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Whatever the shell says: tests start thousands of programs, and each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: all venv dev demo check units test lint format types fuzz sanitize bench figures dist deb rpm clean
all: venv

venv: $(INSTALLED)
	@echo "$(VENV)/bin/mcencrypt is ready"

$(INSTALLED): pyproject.toml $(SOURCES)
	@tools/prerequisites build $(PYTHON)
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing mcencrypt and the Python packages that it needs in $(VENV)"
	@$(VENV)/bin/python -m pip install -qq --no-input .
	@touch $@

dev: $(STAMP)
	@echo "$(BIN)/python has this tree and all that its tests and checks need"

# What is compiled: each module with types beside it.
COMPILED := $(wildcard src/mcencrypt/*/*.pxd)
COMPILED += $(wildcard $(COMPILED:.pxd=.py) $(COMPILED:.pxd=.pyx))

$(STAMP): $(DEV)/.packages $(COMPILED) hatch_build.py
	@echo "compiling the packet path"
	@$(BIN)/python hatch_build.py >build.log 2>&1 || { tail -n 20 build.log; exit 1; }
	@rm -f build.log; touch $@

$(DEV)/.packages: pyproject.toml
	@tools/prerequisites build $(PYTHON)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(DEV)
	@echo "installing what developers need in $(DEV)"
	@$(BIN)/python -m pip install -qq --no-input --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	@tools/prerequisites lab $(PYTHON)
	@$(VENV)/bin/python -m lab.demo

test: $(STAMP)
	@tools/prerequisites $(if $(filter-out tests/unit% tests/property%,$(TESTS)),test,unit) $(PYTHON)
	@$(BIN)/python -m pytest -n $(WORKERS) $(TESTS); status=$$?; \
	if [ $$status = 0 ] && [ "$(TESTS)" = tests ]; then $(SOURCES_ALONE) -n $(WORKERS); status=$$?; fi; \
	echo $$status >$(PYTEST_STATUS); exit $$status

# All that needs neither root nor a kernel: for while one works, and before each commit.
check: format
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target types units

units: $(STAMP)
	@tools/prerequisites unit $(PYTHON)
	@$(BIN)/python -m pytest -q -n 2 tests/unit tests/property
	@$(SOURCES_ALONE) -n 2

lint: format types

# Python that is not named .py.
SCRIPTS := $(shell grep -ls '^\#!/usr/bin/env python' benchmarks/* tools/*)

format: $(STAMP)
	@$(BIN)/python -m ruff check . $(SCRIPTS)
	@$(BIN)/python -m ruff format --check . $(SCRIPTS)

types: $(STAMP)
	@$(BIN)/python -m mypy

# All targets beside each other, each with so many inputs; FUZZ: other words of `python -m tests.fuzz --help`.
FUZZ ?= --runs 1000000 --corpus fuzz-corpus
fuzz: $(STAMP)
	@$(BIN)/python -m tests.fuzz $(FUZZ)

bench: $(STAMP)
	@tools/prerequisites bench $(PYTHON)
	@$(BIN)/python benchmarks/compare $(BENCH)

# All figures of docs/performance.md, in half an hour on a machine that does nothing else: Markdown, JSON and SVG.
FIGURES ?= build/figures
figures: $(STAMP)
	@tools/prerequisites bench $(PYTHON)
	@mkdir -p $(FIGURES)
	@$(BIN)/python benchmarks/compare --rounds 7 --write $(FIGURES)/batches
	@$(BIN)/python benchmarks/compare --rounds 5 --tso off --gro off --write $(FIGURES)/single-segments
	@$(BIN)/python benchmarks/compare --rounds 5 --ipv6 --write $(FIGURES)/ipv6
	@$(BIN)/python benchmarks/packet-path
	@$(BIN)/python benchmarks/many --write $(FIGURES)/many
	@$(BIN)/python benchmarks/mesh --write $(FIGURES)/mesh

# The compiled packet path under AddressSanitizer; SANITIZE: see tools/sanitize --help.
SANITIZE ?=
sanitize: $(STAMP)
	@$(BIN)/python tools/sanitize $(SANITIZE)

dist: $(STAMP)
	@rm -f dist/mcencrypt-*.whl dist/mcencrypt-*.tar.gz
	@$(BIN)/python -m build --outdir dist . >dist.log 2>&1 || { tail -n 20 dist.log; exit 1; }
	@rm dist.log; tools/sums dist; ls dist/mcencrypt-*.whl dist/mcencrypt-*.tar.gz

deb:
	@tools/prerequisites deb $(DEB_PYTHON)
	@PYTHON=$(DEB_PYTHON) tools/deb dist

rpm:
	@tools/prerequisites rpm $(RPM_PYTHON)
	@PYTHON=$(RPM_PYTHON) tools/rpm dist

clean:
	rm -rf $(VENV) $(DEV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
