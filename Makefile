# One word per chore, the same on a laptop and in CI. Each makes the environment it needs, so any may be run first:
#   make caption IMG=photo.jpg    print a caption of that photo
#   make test                     run the tests, with coverage
#   make test-oldest              run them with the oldest releases that pyproject.toml allows, on Python 3.11
#   make kill                     kill extraction, training, captioning and shards 100 times each and look for losses
#   make setup                    make the environment (.venv), everything included
#   make check                    lint, format, types, spelling, layers, names, generated pages, links
#   make fuzz                     try 5,000 hostile inputs of each kind; for others: CAPTIONER_FUZZ_SEED=7 make fuzz
#   make bench                    measure speed ratios
#   make docs                     generate pages from commands and files, and build the site in site/
#   make dist                     build wheel and source archive into dist/, reproducibly, and check them
#   make sbom                     list what an installation of the wheel holds, as CycloneDX, in dist/sbom.cdx.json
#   make clean                    remove the environments and what tools left behind

PYTHON ?= python3
PYTHON_OLDEST ?= python3.11
IMG ?= examples/dog.jpg
VENV := .venv
PY := $(VENV)/bin/python
OLDEST := .venv-oldest
PINS := tests/constraints-oldest.txt
# Two workers suit two cores; each holds PyTorch, so more need memory: make test WORKERS="-n 8 --dist loadfile"
WORKERS := -n 2 --dist loadfile
# Broken links and pages without a place in the navigation are errors. The variable hushes an advertisement.
SITE := NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
export IMG

.PHONY: help caption setup test test-oldest check fuzz kill bench docs dist sbom clean

help:
	@sed -n 's/^#   //p' Makefile

# What captioning needs; the tools of development come on top with the next stamp.
$(VENV)/.captioner: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: captioner needs Python 3.11 or newer, and $(PYTHON) is not; name one with: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV): the first time this downloads about 100 MB." >&2
	@$(PYTHON) -m venv $(VENV) >&2
	@$(PY) -m pip install --disable-pip-version-check --editable . >&2
	@touch $@

$(VENV)/.dev: $(VENV)/.captioner
	@echo "Adding all packages for tests and checks to $(VENV): PyTorch alone is up to 3 GB, so this takes some minutes." >&2
	@$(PY) -m pip install --disable-pip-version-check --editable '.[dev]' >&2
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	@echo "Adding the tools of the site and of releases to $(VENV)." >&2
	@$(PY) -m pip install --disable-pip-version-check --editable '.[docs]' >&2
	@touch $@

# Made anew whenever a pin or a bound changes, so that nothing of another set of releases stays behind. Without build
# isolation, because pip applies constraints to what is installed and not to what builds it.
$(OLDEST)/.dev: pyproject.toml $(PINS)
	@$(PYTHON_OLDEST) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "error: the oldest releases are for Python 3.11, and $(PYTHON_OLDEST) is not; name one with: make PYTHON_OLDEST=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(OLDEST): this downloads an older PyTorch (up to 3 GB on Linux) and takes some minutes." >&2
	@$(PYTHON_OLDEST) -m venv --clear $(OLDEST) >&2
	@$(OLDEST)/bin/python -m pip install --disable-pip-version-check --constraint $(PINS) setuptools >&2
	@$(OLDEST)/bin/python -m pip install --disable-pip-version-check --constraint $(PINS) --no-build-isolation --editable '.[dev]' >&2
	@touch $@

caption: $(VENV)/.captioner
	@$(PY) -m captioner caption "$$IMG"

setup: $(VENV)/.dev

test: $(VENV)/.dev
	@$(PY) -m pytest $(WORKERS) --cov --cov-report=term:skip-covered

test-oldest: $(OLDEST)/.dev
	@$(OLDEST)/bin/python -m pytest $(WORKERS)

kill: $(VENV)/.dev
	@$(PY) -m pytest tests/kills --kills 100

check: $(VENV)/.docs
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m codespell_lib
	@$(PY) -m scripts.command_reference --check
	@$(PY) -m scripts.tree --check
	@$(PY) -m pytest -q tests/test_layers.py tests/test_names.py
	@$(SITE) --quiet

# A limit on memory, because a small file that asks for a lot of it is a finding; each test limits the time of an input.
fuzz: $(VENV)/.dev
	@ulimit -v 16000000 2>/dev/null; CAPTIONER_FUZZ=5000 $(PY) -m pytest $(WORKERS) tests/fuzz

bench: $(VENV)/.dev
	@$(PY) -m benchmarks.run

docs: $(VENV)/.docs
	@$(PY) -m scripts.command_reference
	@$(PY) -m scripts.tree
	@$(SITE)

dist: $(VENV)/.docs
	@rm -rf dist
	@$(PY) -m scripts.dist

sbom: dist
	@$(PYTHON) -m venv --clear --without-pip build/sbom >&2
	@$(PY) -m pip --python build/sbom/bin/python install --disable-pip-version-check dist/captioner-*.whl >&2
	@$(PY) -m cyclonedx_py environment --output-reproducible --output-file dist/sbom.cdx.json build/sbom/bin/python

clean:
	rm -rf $(VENV) $(OLDEST) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
