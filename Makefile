# The door for people. It sets up .venv on first use (tools/setup.sh) and calls the command nnref.
# It reads the same to GNU make 3.81, which macOS still ships, and to 4.x.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
# Images of containers often forbid Python to keep what it compiled; every start would then cost seconds more.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help experiment diagnose ablation claims test test-oldest test-newest lint lessons docs bench torture cluster devices clean

# Some systems export a NAME of their own (WSL: the computer's); it counts only if it is an experiment.
ifneq ($(origin NAME),command line)
  ifeq ($(wildcard experiments/$(NAME).json),)
    NAME :=
  endif
endif
FILE = $(if $(NAME),"experiments/$(patsubst experiments/%,%,$(patsubst %.json,%,$(NAME))).json")

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo '  Further words for the command go into ARGS: make experiment NAME=xor_small ARGS="--epochs 50"'

experiment: ## Run an experiment: NAME=xor_small; without NAME, list them
	@sh tools/setup.sh run
	@.venv/bin/nnref run $(FILE) $(ARGS)

diagnose: ## Say why an experiment does not learn: NAME=digits_deep_plain
	@sh tools/setup.sh run
	@.venv/bin/nnref diagnose $(FILE) $(ARGS)

ablation: ## Compare the alternatives of a sweep file: NAME=xor_optimizers
	@sh tools/setup.sh run
	@.venv/bin/nnref ablate $(FILE) $(ARGS)

claims: ## Run every experiment and print which claims hold, then diagnose each of them
	@sh tools/setup.sh run
	@.venv/bin/nnref claims $(ARGS); held=$$?; \
	.venv/bin/python benchmarks/diagnose_experiments.py $(ARGS) && exit $$held

test: lint ## Lint, then run the unit tests
	@.venv/bin/python -m pytest -n 2 $(ARGS)

test-oldest: ## Run the unit tests with the lowest version of everything that pyproject.toml allows
	@sh tools/setup.sh oldest
	@.venv-oldest/bin/python -m pytest -n 2 $(ARGS)

# pyproject.toml names a folder .venv to pyright, and --pythonpath does not change that: hence the link.
test-newest: ## Check types and run them with the newest versions, fetched anew, on the newest Python
	@rm -rf .venv-newest
	@sh tools/setup.sh newest
	@ln -s . .venv-newest/.venv
	@.venv-newest/bin/pyright --venvpath .venv-newest
	@.venv-newest/bin/python -m pytest -n 2 $(ARGS)

lint: ## Check style, types and the order of the rooms
	@sh tools/setup.sh dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/pyright
	@.venv/bin/lint-imports --no-logo

lessons: ## Run every lesson of docs/lessons as a notebook; ARGS=02_one_hidden_layer for one
	@sh tools/setup.sh dev
	@.venv/bin/python tools/lessons.py $(ARGS)

docs: ## Build the site from docs/ into build/site, and check its links
	@sh tools/setup.sh docs
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict
	@echo 'open build/site/index.html'

bench: ## Measure the speed against PyTorch and Keras
	@sh tools/setup.sh bench
	@.venv/bin/python benchmarks/run.py $(ARGS)

torture: ## Kills, torn pages, full disks, made-up inputs: is anything lost? ARGS="--kills 20 ..."
	@sh tools/setup.sh dev
	@.venv/bin/python -m benchmarks.torture $(ARGS)

cluster: ## Train a sweep on three nodes of a Ray cluster, kill one of them, and compare the losses
	@sh tools/setup.sh dev
	@.venv/bin/python -c 'import ray' 2>/dev/null || .venv/bin/python -m pip install --quiet '.[ray]'
	@.venv/bin/python tools/cluster.py $(ARGS)

devices: ## Measure a run on one device, on two, and in two processes
	@sh tools/setup.sh dev
	@.venv/bin/python tools/devices.py $(ARGS)

clean: ## Remove the environments and caches; the logbook stays
	@rm -rf .venv .venv-oldest .venv-newest build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find nnref tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || :
