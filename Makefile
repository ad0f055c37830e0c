# Two commands do everything on a fresh machine: `make run` and `make test`. They need Python 3.11+ and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMPILED := $(VENV)/.compiled
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Hundreds of Python processes are started below, and what pip installs is compiled when it is first imported.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test test-long lint format bench mlflow clean setup

help: ## Say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

run: $(READY) $(COMPILED) ## Set up, then run the main job: adaptive clients on real data
	$(BIN)/tightwire run examples/digits.yaml

test: lint $(COMPILED) ## Set up, then every check and test
	$(BIN)/python -m pytest -n 2 --dist worksteal --quiet tests/unit tests/contract
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder tests/chaos tests/cluster
	$(BIN)/python -m pytest -n 2 --dist loadscope tests/e2e

test-long: $(READY) $(COMPILED) ## A hundred faults by chance, and two thousand rounds that leak nothing: an hour
	$(BIN)/python -m pytest -m long tests/cluster
	$(BIN)/python -m pytest -m long -s tests/chaos

lint: $(READY) ## Lint, format check, types, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Format, and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) $(COMPILED) ## Codecs beside memcpy and what one would write instead, client-rounds beside bare PyTorch
	$(BIN)/python benchmarks/codecs.py
	$(BIN)/python benchmarks/nncodec.py
	$(BIN)/python benchmarks/throughput.py

mlflow: $(READY) ## Open the MLflow UI on the local store, http://127.0.0.1:5000
	$(BIN)/mlflow ui --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}

setup: $(READY) ## Only set up

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Tightwire needs Python 3.11 to 3.13; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up $(VENV) (about a minute, once)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable . --group dev
	@touch $@

# A compiled loop is kept until its own file changes, with a copy of what it calls and of constants in other files.
$(COMPILED): $(wildcard $(addprefix platform/tightwire/,codecs/*.py wire/*.py policies/*.py *.py)) \
		$(shell grep -rlE '^import numba|from numba' platform --include=*.py) | $(READY)
	@find platform -name '*.nbi' -delete -o -name '*.nbc' -delete
	@touch $@

clean: ## Remove the environment, caches and runs
	rm -rf $(VENV) runs mlruns mlartifacts mlflow.db* build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
