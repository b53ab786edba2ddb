.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

# A stamp per set of extras: a second `make` installs nothing unless the pins changed.
$(VENV)/base.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python3 >= 3.11 is needed, this is " + sys.version.split()[0])'
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "Installing what constraints.txt pins into $(VENV) (about 6 GB, some minutes; once) ..."
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/base.stamp
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/base.stamp ## make .venv with the pinned packages

quickstart: $(VENV)/base.stamp ## fine-tune a small backbone on an embedded set: offline, about two minutes on 2 cores
	$(RUN) -m workbench fit --recipe recipes/quickstart.yaml

test: $(VENV)/dev.stamp ## lint, then run the test suite, but for its slow tests (offline)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: $(VENV)/dev.stamp ## run the tests that take over ten seconds each
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m slow --timeout 1800

format: $(VENV)/dev.stamp ## format and fix the code
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

clean: ## remove build leftovers (keeps .venv, runs and data)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache

.PHONY: help install quickstart test test-slow format clean
