# make table: install, then regenerate the tables of a suite.  make report: its page.  make test: install, then run the tests.
SUITE ?= digits
PYTHON ?= python3
VENV ?= .venv
export PATH := $(abspath $(VENV))/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help table report keep restore publish test long bench lint generate lock

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 12

# The stamp is written last: a half-finished installation is not taken for a whole one.
$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'
	touch $@

table: $(VENV)/.installed ## Regenerate the tables and the page of SUITE (default: digits), and print the tables
	snakemake --cores all --config suite=$(SUITE)
	python -m indm show --suite $(SUITE)

report: $(VENV)/.installed ## Regenerate the tables and the page of SUITE, and print where the page is
	snakemake --cores all --config suite=$(SUITE)
	@echo "file://$(abspath reports/$(SUITE)/index.html)"

keep: $(VENV)/.installed ## Put what is finished of SUITE into docs/results, for git
	python -m indm keep --suite params/$(SUITE).yaml

# Why in this order: docs/kept.md.
restore: $(VENV)/.installed ## Put what docs/results keeps of SUITE back, for Snakemake to go on from
	python -m indm restore --suite params/$(SUITE).yaml
	snakemake --cores all --config suite=$(SUITE) --until prepare
	snakemake --cores all --config suite=$(SUITE) --touch --forceall

publish: $(VENV)/.installed ## Put tables, figures and pictures of SUITE into docs/results, and averaged weights of the runs WEIGHTS
	python -m indm publish --suite params/$(SUITE).yaml $(addprefix --weights ,$(WEIGHTS))

test: $(VENV)/.installed ## Run the tests
	python -m pytest

long: $(VENV)/.installed ## Run the tests that take minutes
	python -m pytest --long -m long

bench: $(VENV)/.installed ## Time steps and likelihoods; RELEASED=<checkout> does so for the released code beside them
	python -m tests.benchmarks.training $(if $(RELEASED),--released $(RELEASED))
	python -m tests.benchmarks.growth
	python -m tests.benchmarks.scaling
	$(if $(RELEASED),python -m tests.benchmarks.likelihood --released $(RELEASED))

lint: $(VENV)/.installed ## Check style, types and the workflow
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow/rules
	python workflow/lint.py

generate: $(VENV)/.installed ## Rewrite what is generated from other files: the schema, suites in full, DVC files
	python -m indm schema > params/schema.json
	python workflow/generate.py

# Builds of torch and torchvision differ between machines (CPU, CUDA): the minor release is fixed, the build left open.
lock: $(VENV)/.installed ## Rewrite requirements.lock from the installed versions
	python -m pip freeze --exclude-editable | sed -E 's/^(torch|torchvision)==([0-9]+\.[0-9]+).*/\1~=\2.0/' > requirements.lock
