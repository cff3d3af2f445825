# Every target that needs the environment first creates or updates it; if it is up to date, that takes a moment.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# One of Beam's runners, which is written in Go.
PRISM := .toolchain/prism/prism
WITH_PRISM := PATH="$(CURDIR)/$(dir $(PRISM)):$$PATH"
.PHONY: help setup run test test-fast test-nightly test-airflow test-beam test-places lint format clean

# Each worker takes whole files, so that a fixture of a module is made once, and holds up to 3 GB.
WORKERS ?= 2
IN_PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
SELECTED ?= not nightly and not airflow
FAST := not component and not e2e and not serving and not ml1m and not nightly and not airflow

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Create or update the environment (.venv) with all extras
	@scripts/setup.sh --all-extras

run: ## Train, evaluate and push the four models on synthetic data, and show recommendations
	@scripts/setup.sh
	.venv/bin/movielens run --config sample --output output/sample

test: ## Run all tests but the nightly ones; those on MovieLens 1M, or on a part of it, run if ML1M_DIR is its folder
	@scripts/setup.sh --all-extras
	$(WITH_PRISM) .venv/bin/python -m pytest $(IN_PARALLEL) -m '$(SELECTED)' --durations=25

test-fast: ## Run the tests that start no pipeline and no server, in less than three minutes
	@scripts/setup.sh --all-extras
	.venv/bin/python -m pytest $(IN_PARALLEL) -m '$(FAST)'

# Most of these tests are as long as a whole file of the others, so workers take single ones, but for the files whose
# tests share what takes minutes to make: they are groups.
test-nightly: ## Run the long version of tests that has no place in every change
	@scripts/setup.sh --all-extras
	$(WITH_PRISM) .venv/bin/python -m pytest -n $(WORKERS) --dist loadgroup -m nightly

# One environment for each version of Airflow, apart from the project's.
test-airflow: ## Run the pipeline on real Airflows, 2.11 and 3, which takes hours; needs Debian's postgresql and mariadb-server
	@scripts/setup.sh --all-extras
	for version in 2.11.2 3.3.2; do .toolchain/uv/bin/uv venv -q --allow-existing .toolchain/airflow-$$version && \
	.toolchain/uv/bin/uv pip install -q --python .toolchain/airflow-$$version "apache-airflow[postgres]==$$version" || exit; done
	AIRFLOW_ENVIRONMENTS=$(CURDIR)/.toolchain/airflow-2.11.2:$(CURDIR)/.toolchain/airflow-3.3.2 .venv/bin/python -m pytest -m airflow

# Prism is built where Go is there; without it, its test is skipped.
$(PRISM):
	! command -v go || GOBIN="$(CURDIR)/$(dir $(PRISM))" go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0 || echo "Prism could not be built; its test is skipped."

test-beam: $(PRISM) ## Process data with other runners of Beam: its job server with worker processes, and Prism
	@scripts/setup.sh --all-extras
	$(WITH_PRISM) .venv/bin/python -m pytest -m beam

# The servers have an environment of their own, for their requirements are not the project's.
PLACES := $(CURDIR)/.toolchain/places
test-places: ## Run with data and artifacts on servers of this machine that speak S3 and Google Cloud Storage
	@scripts/setup.sh --all-extras
	.toolchain/uv/bin/uv venv -q --allow-existing $(PLACES)
	.toolchain/uv/bin/uv pip install -q --python $(PLACES) 'moto[server]>=5,<6' 'gcp-storage-emulator==2026.7.19'
	PATH="$$PATH:$(PLACES)/bin" .venv/bin/python -m pytest -m "nightly or not nightly" tests/components/data/test_places.py tests/pipeline/test_google_storage.py

lint: ## Check style and types
	@scripts/setup.sh --all-extras
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/shellcheck scripts/*.sh .ci/run

format: ## Format the code and apply automatic fixes
	@scripts/setup.sh --all-extras
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

clean: ## Remove caches and build products, but not the environment or output/
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . \( -name .venv -o -name .toolchain -o -name .git -o -name output \) -prune -o -name __pycache__ -type d -exec rm -rf {} +
