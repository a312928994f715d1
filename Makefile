# make table: install, then regenerate the tables of a suite.  make report: its page.  make test: install, then run the tests.
SUITE ?= digits
PYTHON ?= python3
VENV ?= .venv
export PATH := $(abspath $(VENV))/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: docs help table report keep restore publish test long nightly storages bench lint generate lock

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 12

# The stamp is written last: a half-finished installation is not taken for a whole one.
$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'
	touch $@

storages: $(VENV)/.installed ## Install what the tests of S3 and ssh need
	$(VENV)/bin/python -m pip install --quiet --constraint requirements.lock --editable '.[dev,storages]'

table: $(VENV)/.installed ## Regenerate the tables and the page of SUITE (default: digits), and print the tables
	snakemake --cores all --config suite=$(SUITE)
	python -m indm show --suite $(SUITE)

report: $(VENV)/.installed ## Regenerate the tables and the page of SUITE, and print where the page is
	python -m indm run $(SUITE)

keep: $(VENV)/.installed ## Copy the finished results of SUITE to docs/results, for git
	python -m indm keep $(SUITE)

# A dataset is loaded only if runs are missing: docs/share.md.
restore: $(VENV)/.installed ## Copy the kept results of SUITE back from docs/results, for Snakemake to continue from
	python -m indm restore $(SUITE)
	snakemake --quiet --cores all --config suite=$(SUITE) --until prepare

publish: $(VENV)/.installed ## Copy tables, figures and pictures of SUITE to docs/results, and averaged weights of the runs WEIGHTS
	python -m indm publish $(SUITE) $(addprefix --weights ,$(WEIGHTS))

# Two tests at a time: each has one thread, and a laptop has two cores.
test: $(VENV)/.installed ## Run the tests
	python -m pytest --numprocesses 2 --dist worksteal

# Tests of a file share suites that were run. Two files at a time: a suite's second core is idle half of the time.
long: $(VENV)/.installed ## Run the tests that take minutes
	python -m pytest --long -m long --numprocesses 2 --dist loadfile --no-loadscope-reorder

nightly: $(VENV)/.installed ## Run the tests that take an hour: hundreds of generated suites, compiled training
	python -m pytest --nightly -m nightly

docs: $(VENV)/.installed ## Build the documentation into site/: README, docs and docstrings
	$(VENV)/bin/python -m pip install --quiet --constraint requirements.lock --editable '.[docs]'
	rm -rf docs/reference/api  # pages of modules that are gone
	python -m sphinx -b html -W --keep-going -q -c docs . site
	@echo "file://$(abspath site/index.html)"

bench: $(VENV)/.installed ## Time steps and likelihoods; RELEASED=<checkout> does so for the released code beside them
	python -m benchmarks.training $(if $(RELEASED),--released $(RELEASED))
	python -m benchmarks.scaling
	$(if $(RELEASED),python -m benchmarks.likelihood --released $(RELEASED))

lint: $(VENV)/.installed ## Check style, types, the workflow and the Containerfile
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow/rules
	python workflow/lint.py
	hadolint Containerfile

generate: $(VENV)/.installed ## Rewrite what is generated from other files: the schema, suites in full, DVC files
	python -m indm schema > params/schema.json
	python workflow/generate.py

# Builds of torch and torchvision differ between machines (CPU, CUDA): the minor release is fixed, the build left open.
lock: storages ## Rewrite requirements.lock from the installed versions, and requirements.hashes.lock from it
	python -m pip freeze --exclude-editable --exclude uv | sed -E 's/^(torch|torchvision)==([0-9]+\.[0-9]+).*/\1~=\2.0/' > requirements.lock
	python -m pip install --quiet uv
	python -m uv pip compile pyproject.toml $(addprefix --extra ,kubernetes s3 slurm ssh) --constraint requirements.lock \
	  --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command 'make lock' --quiet \
	  --output-file requirements.hashes.lock
