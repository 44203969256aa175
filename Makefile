# make venv: .venv/bin/mcencrypt    make demo, test, lint, bench: see README.md    make clean: all of it gone
# make dist: wheel and sdist in dist/    make deb: Debian package in dist/
# On Debian, as root, each installs what it needs and is missing; otherwise it says what to install.

PYTHON ?= python3
# The interpreter that the Debian package will run with.
DEB_PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Options for pytest and for the benchmark, and a file that gets pytest's exit status (make's own is always 2).
TESTS ?= tests
BENCH ?=
PYTEST_STATUS ?= /dev/null

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: all venv demo test lint bench dist deb clean
all: venv

venv: $(STAMP)
	@echo "$(BIN)/mcencrypt is ready"

$(STAMP): pyproject.toml
	@tools/prerequisites build $(PYTHON)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing mcencrypt and its Python packages in $(VENV)"
	@$(BIN)/python -m pip install -qq --no-input --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@tools/prerequisites lab $(PYTHON)
	@$(BIN)/python -m lab.demo

test: $(STAMP)
	@tools/prerequisites test $(PYTHON)
	@$(BIN)/python -m pytest $(TESTS); status=$$?; echo $$status >$(PYTEST_STATUS); exit $$status

lint: $(STAMP)
	@$(BIN)/python -m ruff check . benchmarks/throughput
	@$(BIN)/python -m mypy

bench: $(STAMP)
	@tools/prerequisites bench $(PYTHON)
	@$(BIN)/python benchmarks/throughput $(BENCH)

dist: $(STAMP)
	@rm -f dist/mcencrypt-*
	@$(BIN)/python -m build --outdir dist . >dist.log 2>&1 || { tail -n 20 dist.log; exit 1; }
	@rm dist.log; ls dist/mcencrypt-*

deb:
	@tools/prerequisites deb $(DEB_PYTHON)
	@PYTHON=$(DEB_PYTHON) tools/deb dist

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
