# `make help` lists what there is. Every target sets up what it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
DATA ?= data/synthetic
CONFIG ?= configs/synthetic.yaml
ARGS ?=
BIN := .venv/bin

CORPUS := $(if $(filter data/synthetic,$(DATA)),data/synthetic/annotation.csv)

.PHONY: help setup loso ablation baselines cluster-demo check prepare bench test lint clean
.DEFAULT_GOAL := help

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed ## Create the environment with the tested versions.

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

loso: setup $(CORPUS) ## Hold out every subject once: make loso [DATA=folder CONFIG=file ARGS=overrides].
	$(BIN)/mer4d loso --config $(CONFIG) --data.root '$(DATA)' $(ARGS)

ablation: setup $(CORPUS) ## What each part of the method is worth: make ablation [DATA=folder CONFIG=file ARGS=overrides].
	$(BIN)/mer4d ablation --config $(CONFIG) --data.root '$(DATA)' $(ARGS)

baselines: setup $(CORPUS) ## The method beside others: make baselines [DATA=folder CONFIG=file ARGS=overrides].
	$(BIN)/mer4d ablation --config $(CONFIG) --data.root '$(DATA)' --ablation.rows configs/baselines $(ARGS)

cluster-demo: setup $(CORPUS) ## The same as loso, on a Dask scheduler and two workers of this machine.
	$(BIN)/python examples/cluster.py $(BIN)/mer4d loso --config $(CONFIG) --data.root '$(DATA)' --loso.name cluster $(ARGS)

check: setup ## Name all that is wrong with a corpus: make check [DATA=folder CONFIG=file ARGS=overrides].
	$(BIN)/mer4d check --config $(CONFIG) --data.root '$(DATA)' $(ARGS)

prepare: setup ## Fill the cache alone: make prepare [DATA=folder CONFIG=file ARGS=overrides].
	$(BIN)/mer4d prepare --config $(CONFIG) --data.root '$(DATA)' $(ARGS)

data/synthetic/annotation.csv: | setup
	$(BIN)/mer4d synth data/synthetic

test: setup ## Run all tests, on all cores.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

bench: setup ## All speeds that matter, in bench/bench.md and bench.json: make bench [ARGS="--quick true"].
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench.py $(ARGS)

lint: setup ## Check style and formatting.
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean: ## Remove environment, corpus, cache and runs.
	rm -rf .venv data/synthetic cache runs bench
