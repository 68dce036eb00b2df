# Each target first makes .venv where it is missing, or older than pyproject.toml or constraints.txt.

SHELL := bash
.SHELLFLAGS := -o pipefail -c
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/pip install --no-input --disable-pip-version-check -c constraints.txt
PIP_WHEEL := $(BIN)/pip wheel --no-input --disable-pip-version-check -c constraints.txt
# pip names every package twice or more: 665 lines. Its errors go to the other stream, and are all shown.
COUNTED := | awk '/^Collecting/ { if (++n % 50 == 0) { print "setup: " n " packages found"; fflush() } } \
  /^Installing collected/ { print "setup: " n " packages found, installing them"; fflush() }'
BENCH ?=
CHAOS_ARGS ?=
FUZZ_ARGS ?=
JOB ?= jobs/retrieval.py
NODES_ARGS ?=
PYTEST_ARGS ?=
REHEARSAL_ARGS ?=
WHEELS ?= -r constraints.txt "setuptools>=77" ".[gpu,demo]"

.DEFAULT_GOAL := help
.PHONY: help setup demo submit test test-fast test-slow test-ray test-real corpora rehearsal check check-deploy docs wheelhouse bench chaos fuzz nodes
.SILENT:

help: ## show this list
	awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: $(INSTALLED) ## make .venv with the tested versions: the package, the tools, the model of the demo

# `python -c` and not `command -v`: a shim of pyenv is there even where its Python is not. A .venv without a working pip
# is made anew; a working one is brought up to date.
$(INSTALLED): pyproject.toml constraints.txt
	if ! $(BIN)/python -m pip --version > /dev/null 2>&1; then \
	  for python in python3.11 python3.12 python3 none; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && break; \
	  done; \
	  if [ "$$python" = none ]; then \
	    echo "setup: python3.11, python3.12 and python3 are missing or older than 3.11; install Python >= 3.11" >&2; \
	    exit 1; \
	  fi; \
	  echo "setup: $(VENV) with $$($$python --version)"; \
	  $$python -m venv --clear $(VENV); \
	fi
	echo "setup: packages of constraints.txt, some minutes the first time"
	$(PIP) -e ".[cpu,dev,demo]" $(COUNTED)
	touch $@

demo: $(INSTALLED) ## retrieve spoken translations with a real model and real speech, then write the report
	echo "demo: 1 of 2, retrieval"
	$(BIN)/python jobs/retrieval.py
	echo "demo: 2 of 2, report"
	$(BIN)/python jobs/report.py

# `.git` does not travel with a job. The commit does, for the manifest of what the job makes; `-dirty` where files differ.
submit: $(INSTALLED) ## submit a job to the cluster of RAY_API_SERVER_ADDRESS (JOB="jobs/retrieval.py --preset ...")
	commit=$$(git describe --always --dirty --abbrev=40 --exclude='*'); \
	$(BIN)/ray job submit --working-dir . --runtime-env-json "{\"env_vars\": {\"XLT_RAY_COMMIT\": \"$$commit\"}}" \
	  -- python $(JOB)

test: test-fast test-slow test-ray ## every test that needs no network: the three levels below

test-fast: $(INSTALLED) ## the tests that start no Ray and take under a second (arguments: PYTEST_ARGS=...)
	$(BIN)/pytest -n auto --dist loadfile -m "not slow and not ray and not real and not wide" $(PYTEST_ARGS)

test-slow: $(INSTALLED) ## the other tests that start no Ray: they wait, measure memory or start processes
	$(BIN)/pytest -n auto --dist loadfile -m slow $(PYTEST_ARGS)

test-ray: $(INSTALLED) ## the tests that start a Ray, as many at a time as there are cores (arguments: PYTEST_ARGS=...)
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder -m "ray and not real and not wide" $(PYTEST_ARGS)

test-real: $(INSTALLED) ## the tests on the real model and the real speech of the demo
	$(BIN)/pytest -m real $(PYTEST_ARGS)

corpora: $(INSTALLED) ## every job on every kind of corpus, in miniature: a table of seconds (about an hour on 2 cores)
	$(BIN)/pytest -m wide -s $(PYTEST_ARGS)

rehearsal: $(INSTALLED) ## the paper's programme at its real row counts, with short clips (REHEARSAL_ARGS="--scale 0.02")
	$(BIN)/python -m benchmarks.rehearsal $(REHEARSAL_ARGS)

check: $(INSTALLED) ## lint, format, types, spelling
	echo "check: ruff check"
	$(BIN)/ruff check
	echo "check: ruff format"
	$(BIN)/ruff format --check
	echo "check: mypy"
	$(BIN)/mypy --strict
	echo "check: imports"
	$(BIN)/lint-imports --no-cache > /dev/null
	echo "check: codespell"
	$(BIN)/codespell --skip './runs,./build,*.egg-info'

check-deploy: $(INSTALLED) ## the image, the manifests, the policies and both cluster files
	$(BIN)/python -m pytest tests/deploy $(PYTEST_ARGS)

# A link that leads nowhere is a warning of mkdocs, and --strict makes it an error, but not with --quiet, which hides it.
docs: $(VENV)/.installed-docs ## the documentation as a site: build/docs/index.html
	$(BIN)/python docs/settings.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	echo "docs: build/docs/index.html"

$(VENV)/.installed-docs: $(INSTALLED)
	echo "setup: mkdocs-material"
	$(PIP) -e ".[docs]"
	touch $@

# setuptools: what an offline `pip install -e .` builds with. The package itself is always that of the checkout.
wheelhouse: $(INSTALLED) ## every wheel of constraints.txt into wheelhouse/, for an installation without a network
	echo "wheelhouse: several gigabytes"
	$(PIP_WHEEL) --wheel-dir wheelhouse $(WHEELS)
	rm -f wheelhouse/xlt_ray-*

bench: $(VENV)/.installed-bench ## benchmarks against their peers; all that need no GPU, or BENCH="seqsim shards"
	$(BIN)/python -m benchmarks $(BENCH)

$(VENV)/.installed-bench: $(INSTALLED)
	echo "setup: the peers of the benchmarks"
	$(PIP) -e ".[bench]"
	touch $@

chaos: $(INSTALLED) ## break running jobs, count what is lost, for 25 minutes (CHAOS_ARGS="--seed 7", "--minutes inf" for everything)
	$(BIN)/python -m benchmarks.chaos --minutes 18 $(CHAOS_ARGS)

nodes: $(INSTALLED) ## every job on a cluster that grows from no node and shrinks to none (NODES_ARGS="--only embed")
	$(BIN)/python -m benchmarks.chaos.nodes $(NODES_ARGS)

fuzz: $(INSTALLED) ## hostile files and names to everything that reads them (FUZZ_ARGS="--seed 2 --seconds 300 --only audio")
	$(BIN)/python -m benchmarks.fuzz $(FUZZ_ARGS)
