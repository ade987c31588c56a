# Every target prepares .venv first, so any of them is a newcomer's first command.
#
#   make quickstart   tune the built-in model on pictures it has never seen (a few minutes on two cores)
#   make test         what CI runs: lint, types, tests
#   make check-slow   the tests that take longer
#   make bench        speed and memory against peers
#   make docs         the documentation, into site/
#   make base         build the embedded base model again from its recipe (hours)
#   make lint, make format

# Any Python from 3.11 on; override with `make PYTHON=python3.12 ...`.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: quickstart test check-slow bench docs base lint format install
.DEFAULT_GOAL := quickstart

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "inlay needs Python 3.11 or newer; none was found. Name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Creating $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing inlay and what it needs into $(VENV) (about 2 GB, a few minutes the first time)"
	@$(INSTALL) -e ".[dev,tensorboard,hub,digits,cluster,optimizers]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@$(INSTALL) -e ".[docs]"
	@touch $@

quickstart: install
	$(BIN)/inlay tune recipes/quickstart.yaml

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

check-slow: install
	$(BIN)/python -m pytest -m slow

bench: install
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

base: install
	PATH="$(CURDIR)/$(BIN):$$PATH" bash recipes/tabletop/build.sh

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
