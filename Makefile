# Each target makes .venv when it is missing and installs again only when pyproject.toml changed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help demo test check bench clean

help:            ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(VENV)/.demo  ## draw a few groups, build a dataset, bench four models: a table, a plot, a sheet
	$(BIN)/isekai demo

test: $(VENV)/.test  ## run the tests
	$(BIN)/pytest -n auto --dist worksteal

check: $(VENV)/.test ## lint, formatting and types: what CI runs besides the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test ## measure speed, memory and crash safety: see benchmarks/README.md
	$(BIN)/python benchmarks/render.py
	$(BIN)/python benchmarks/kill.py
	$(BIN)/python -m benchmarks.harness
	$(BIN)/python -m benchmarks.generate
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python -m benchmarks.dedup
	$(BIN)/python -m benchmarks.hub
	$(BIN)/python -m benchmarks.build
	$(BIN)/python -m benchmarks.runtime

clean:           ## remove what the targets made, the environment too
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis demo

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "isekai needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.demo

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[all]'
	@touch $@
