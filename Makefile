# One word per chore, the same on a laptop and in CI. Each makes the environment it needs, so any may be run first:
#   make caption IMG=photo.jpg    print a caption of that photo
#   make test                     run the tests
#   make setup                    make the environment (.venv), everything included
#   make check                    lint, format, types, layers, command reference
#   make bench                    measure speed ratios
#   make docs                     write docs/commands.md anew
#   make clean                    remove the environment and what tools left behind

PYTHON ?= python3
IMG ?= examples/dog.jpg
VENV := .venv
PY := $(VENV)/bin/python
export IMG

.PHONY: help caption setup test check bench docs clean

help:
	@sed -n 's/^#   //p' Makefile

# What captioning needs; the tools of development come on top with the next stamp.
$(VENV)/.captioner: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: captioner needs Python 3.11 or newer, and $(PYTHON) is not; name one with: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV): the first time this downloads PyTorch (up to 3 GB on Linux) and takes some minutes." >&2
	@$(PYTHON) -m venv $(VENV) >&2
	@$(PY) -m pip install --disable-pip-version-check --editable . >&2
	@touch $@

$(VENV)/.dev: $(VENV)/.captioner
	@echo "Adding the tools for tests and checks to $(VENV)." >&2
	@$(PY) -m pip install --disable-pip-version-check --editable '.[dev]' >&2
	@touch $@

caption: $(VENV)/.captioner
	@$(PY) -m captioner caption "$$IMG"

setup: $(VENV)/.dev

test: $(VENV)/.dev
	@$(PY) -m pytest

check: $(VENV)/.dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m scripts.command_reference --check
	@$(PY) -m pytest -q tests/test_layers.py

bench: $(VENV)/.dev
	@$(PY) -m benchmarks.run

docs: $(VENV)/.dev
	@$(PY) -m scripts.command_reference

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
