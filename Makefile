# Two commands do everything on a fresh machine: `make demo` and `make test`. `make help` lists the rest.
# Needed beforehand: Python 3.11 or newer, Java 17.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV   := .venv
BIN    := $(VENV)/bin
AIRFLOW := .venv-airflow
MOTO   := .venv-moto
EVENTS ?=
PORT   ?= 4566
# Most tests wait for Spark, S3 and processes; each worker has a Spark of its own, which takes 2 GB.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench cluster-test faults firehose-kills moto-setup image airflow-setup airflow-test lint format lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# The product: its environment, the `lakehose` command, Spark's jars and Trino.
$(VENV)/.product: requirements/main.txt pyproject.toml lakehose/prerequisites.py
	@$(PYTHON) lakehose/prerequisites.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setup: installing the product into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/main.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.downloads: $(VENV)/.product spark_jobs/session.py athena/_install.py
	@echo "setup: fetching Spark's jars and Trino (about 900 MB, once)"
	@$(BIN)/python -m spark_jobs.session --fetch
	@$(BIN)/python -m athena.trino --fetch
	@touch $@

# What tests and linting need on top.
$(VENV)/.develop: $(VENV)/.product requirements/dev.txt
	@echo "setup: installing the tools for tests into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

setup: $(VENV)/.downloads ## Make .venv with the `lakehose` command, and fetch Spark's jars and Trino

demo: setup ## The main job on real flights; EVENTS=5000 is the quick form, RESUME=1 goes on where one was cut off
	@$(BIN)/python -m demo --port $(PORT) $(if $(EVENTS),--events $(EVENTS)) $(if $(RESUME),--resume) $(if $(CHAOS),--chaos)

# By itself xdist begins with the files that have most tests, and so ends with those of few long ones.
test: setup $(VENV)/.develop ## All tests that need no cluster, with a small end-to-end run among them
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

bench: setup $(VENV)/.develop ## Measurements, each beside another in one run: ONLY=firehose, SCALE=0.1 for a quick look
	@$(BIN)/python tests/bench $(if $(ONLY),--only $(ONLY)) $(if $(SCALE),--scale $(SCALE))

cluster-test: setup $(VENV)/.develop ## The tests that need a Kubernetes cluster: KUBECONFIG names one
	@$(BIN)/python -m pytest -m cluster tests/cluster tests/k8s $(ARGS)

faults: setup $(VENV)/.develop ## Break jobs off and cut their way to AWS; ROUNDS=100, SEED=n repeats, FIRST=n begins there
	@$(BIN)/python -m tests.faults $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(STRIKES),--strikes $(STRIKES)) \
		$(if $(SEED),--seed $(SEED)) $(if $(FIRST),--first $(FIRST)) $(if $(MASTER),--master '$(MASTER)')

firehose-kills: setup $(VENV)/.develop ## Kill the Firehose server under load again and again; KILLS=1000, MINUTES=30, PROCESSES=2, SEED=n repeats
	@$(BIN)/python -m tests.firehose_kills $(if $(KILLS),--kills $(KILLS)) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(SEED),--seed $(SEED)) $(if $(PROCESSES),--processes $(PROCESSES))

# moto is only measured beside ours; it would bring a web framework into our environment.
$(MOTO)/.installed: requirements/moto.txt
	@test -x $(MOTO)/bin/python || $(PYTHON) -m venv $(MOTO)
	@echo "setup: installing moto into $(MOTO)"
	@$(MOTO)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/moto.txt
	@touch $@

moto-setup: $(MOTO)/.installed ## Make .venv-moto, which `make bench ONLY=firehose` measures beside ours

image: ## Build the images of the jobs and of Firehose, without Docker too
	@k8s/image/build

# Airflow's Kubernetes provider wants another client than ours: an environment of its own.
$(AIRFLOW)/.installed: requirements/airflow.txt
	@test -x $(AIRFLOW)/bin/python || $(PYTHON) -m venv $(AIRFLOW)
	@echo "setup: installing Airflow into $(AIRFLOW)"
	@$(AIRFLOW)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/airflow.txt
	@touch $@

airflow-setup: $(AIRFLOW)/.installed ## Make .venv-airflow, for the DAGs

airflow-test: setup $(VENV)/.develop airflow-setup ## The Airflow DAGs, in Airflow's environment, and real runs of them
	@$(AIRFLOW)/bin/python -m pytest tests/dags $(ARGS)

lint: $(VENV)/.develop ## ruff and mypy strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.develop ## Lay the code out
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: ## Pin the newest versions that fit together, with hashes and without addresses
	@$(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet --disable-pip-version-check uv
	@for one in main dev jobs firehose airflow moto; do build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header requirements/$$one.in -o requirements/$$one.txt; done

clean: ## Remove what was built; the local endpoint's state stays (`lakehose local reset` removes it)
	@rm -rf $(VENV) $(AIRFLOW) $(MOTO) build .mypy_cache .ruff_cache .pytest_cache
