# Everything a person runs. Needs Python 3.11+ with pip and venv, and make; uses uv when it is there.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
UV ?= $(shell command -v uv 2>/dev/null)
VENV := .venv
RUN := $(VENV)/bin/python

# One line for every twenty packages, so that the first minute is not silent.
PROGRESS = awk '/^(Collecting|Processing|Requirement already satisfied)/ {if (++n % 20 == 0) {print "  " n " packages found"; fflush()}} \
	/^Installing collected/ {print "  installing them"; fflush()}'
COMPILE = --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet $(if $(UPGRADE),--upgrade)

# The official SDKs that adapters are held against, each with a lock and an environment of its own.
SDK_LOCKS = $(wildcard tests/vendors/sdk/*/requirements.lock)
SDKS = $(SDK_LOCKS:tests/vendors/sdk/%/requirements.lock=build/vendors/sdk-%/installed)

# The clients of docs/clients.md: frameworks with a lock each, and MCP Inspector, which npm installs.
CLIENT_LOCKS = $(wildcard examples/clients/*/requirements.lock)
CLIENTS = $(CLIENT_LOCKS:examples/clients/%/requirements.lock=build/vendors/client-%/installed)

# Tests that take a minute or more each. `make test` runs them too; continuous integration leaves them out.
LONG = tests/chaos/test_chaos.py tests/gateway/behaviour/upstreams/test_faulty_agents.py tests/gateway/telemetry/test_worker_figures.py \
	$(addprefix tests/journeys/,test_kill.py test_takeover.py test_drain.py test_grpc_drain.py test_mcp_tasks.py test_restore.py test_upgrade.py) tests/soak/test_rolling.py tests/deploy/test_proxy.py

# Databases of tests are on a disk of memory where there is one with 4 GB free: no test cuts the power.
IN_MEMORY = $(if $(TMPDIR),,$(shell .ci/memory-folder))

.PHONY: help setup demo test journeys check image bench search attacks isolation chaos mutation conformance test-vendors serve lock sbom screenshots docs fuzz alerts soak large overload
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

setup: $(VENV)/installed ## the virtual environment .venv, from the hashed lock

demo: setup $(if $(filter langgraph,$(SALES)),build/vendors/langgraph/installed) ## two agents of different vendors delegate (DEMO_EXIT=1 ends by itself, SALES=langgraph)
	@SALES=$(SALES) $(RUN) -m examples.demo

test: setup ## the whole test suite (SHORT=1: without the long ones; PYTEST=… adds options)
	@$(IN_MEMORY) $(RUN) -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(PYTEST) $(if $(SHORT),tests $(LONG:%=--ignore=%))

journeys: setup ## the long ones of the suite alone: killed, drained and taken-over gateways, lying agents, chaos
	@$(RUN) -m pytest -q -n 2 --dist loadfile $(LONG)

check: setup ## linters, types, direction of imports, rules of the house
	@echo "ruff check";         $(RUN) -m ruff check --quiet .
	@echo "ruff format";        $(RUN) -m ruff format --quiet --check . || { echo "make check: run .venv/bin/ruff format" >&2; exit 1; }
	@echo "import contracts";   $(VENV)/bin/lint-imports --no-logo >build/imports.txt || { cat build/imports.txt; exit 1; }
	@echo "mypy, and the rules of the house"; $(RUN) -m mypy --no-error-summary & types=$$!; $(RUN) -m pytest -q tests/house || failed=1; wait $$types && [ -z "$${failed:-}" ]

overload: setup ## four times the capacity for a minute (SECONDS=n, WORKLOAD=mcp|a2a), also in build/overload.json
	@$(RUN) -m tests.overload $(if $(SECONDS),--seconds $(SECONDS)) $(if $(WORKLOAD),--workload $(WORKLOAD))

bench: setup ## figures against direct calls and a raw pass-through, also in build/bench.json
	@$(RUN) -m tests.bench

large: setup ## 10,000 agents, 10,000 tools and a million tasks beside an empty gateway (SCALE=0.01: smaller), also in build/large.json
	@$(IN_MEMORY) $(RUN) -m tests.large $(if $(SCALE),--scale $(SCALE))

attacks: setup ## the catalogue of attacks, each by its tests, and whether these notice a missing guard; also in build/attacks.json
	@$(RUN) -m tests.attacks

isolation: setup ## two people, 20,000 calls over 64 connections, nothing of one at the other; also in build/isolation.json
	@$(RUN) -m tests.isolation

chaos: setup ## kill -9 at random moments while workflows run (ROUNDS=n on each database, SEED=n), also in build/chaos.json
	@$(RUN) -m tests.chaos $(if $(ROUNDS),--postgres $(ROUNDS) --sqlite $(ROUNDS)) $(if $(SEED),--seed $(SEED))

fuzz: setup build/vendors/fuzz/installed ## 50,000 random requests to MCP and A2A, and Schemathesis over /api (FUZZ="--seed 2 --cases 1000"), also in build/fuzz.json
	@$(RUN) -m tests.fuzz $(FUZZ)

soak: setup ## half capacity with 500 streams (MINUTES=n, 10), then rolling restarts of two processes, also in build/soak.json
	@$(RUN) -m tests.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(STREAMS),--streams $(STREAMS))

mutation: setup ## how many small changes to policies/ the tests notice, by a sample (MUTANTS=--all: by all), also in build/mutation.json
	@$(RUN) -m tests.mutation $(MUTANTS)

search: setup ## how often the search mode of MCP finds the right one of 1,600 operations, also in build/search.json
	@$(RUN) -m tests.search

conformance: setup ## the public A2A, MCP and workflow kits against the gateway (docs/conformance.md), also in build/conformance.json
	@$(RUN) -m tests.conformance

test-vendors: setup build/vendors/langgraph/installed build/vendors/adk/installed $(SDKS) $(CLIENTS) build/vendors/client-inspector/installed ## live servers of vendors, every recording, official SDKs, clients, also in build/vendors.json
	@$(RUN) -m tests.vendors

image: setup ## each step of the Dockerfile by hand with the pip that Python brings, and the container's commands; needs no engine
	@IMAGE=1 $(RUN) -m pytest -q -rA tests/house/test_image.py -k replayed

screenshots: setup ## pictures of the console in build/screenshots, taken while the demo's story is played; needs chromium
	@$(RUN) -m examples.screenshots

docs: setup build/vendors/docs/installed ## the documentation as a site in build/docs, with the pictures of `make screenshots`; broken links fail
	@$(RUN) -m tests.docs 2>build/docs.log || { cat build/docs.log; exit 1; }
	@DOCS=1 $(RUN) -m pytest -q tests/docs

alerts: ## the rules for Prometheus against what must fire each of them, with promtool (PROMTOOL=…)
	@promtool="$${PROMTOOL:-$$(command -v promtool || true)}"; if [ -z "$$promtool" ]; then echo "make alerts: skipped: there is no promtool on the PATH (Debian: the package prometheus)"; exit 0; fi; \
	cd examples/observability && "$$promtool" check rules rules.yml && "$$promtool" test rules rules.test.yml

sbom: setup ## what the product is made of, as CycloneDX in build/sbom.json
	@mkdir -p build; $(RUN) -m tests.house.sbom requirements.lock >build/sbom.json; echo "written to build/sbom.json"

serve: setup ## the gateway alone, on http://127.0.0.1:8080
	@exec $(RUN) -m gateway serve

$(VENV)/locked: requirements-dev.lock
	@.ci/venv "$(PYTHON)" "$(UV)" $(VENV)
	@count=$$(grep -c '^[a-z]' $<); echo "Installing $$count packages from $< (a minute or so, the first time only)"; \
	if [ -n "$(UV)" ]; then $(UV) --no-config pip install --quiet --compile-bytecode --python $(RUN) --require-hashes -r $<; \
	else $(RUN) -m pip install --disable-pip-version-check --no-color --require-hashes -r $< | $(PROGRESS); fi
	@touch $@

$(VENV)/installed: $(VENV)/locked pyproject.toml
	@mkdir -p build
	@if [ -n "$(UV)" ]; then $(UV) --no-config pip install --quiet --python $(RUN) --no-deps --no-build-isolation -e .; \
	else $(RUN) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .; fi
	@touch $@

# Servers, SDKs and clients of others, each in an environment of its own: of the demo's other sales agent, of `make test-vendors`, of `make docs`,
# and of the test that signs in with fastmcp.
build/vendors/langgraph/installed: examples/langgraph_sales/requirements.lock
build/vendors/adk/installed: tests/vendors/adk/requirements.lock
build/vendors/docs/installed: tests/docs/requirements.lock
build/vendors/fuzz/installed: tests/fuzz/requirements.lock
build/vendors/fastmcp/installed: tests/gateway/oauth/fastmcp_client/requirements.lock
$(CLIENTS): build/vendors/client-%/installed: examples/clients/%/requirements.lock
$(SDKS): build/vendors/sdk-%/installed: tests/vendors/sdk/%/requirements.lock
build/vendors/%/installed:
	@mkdir -p build/vendors; .ci/venv "$(PYTHON)" "$(UV)" $(@D)
	@count=$$(grep -c '^[a-z]' $<); echo "Installing $* in $(@D): $$count packages (a minute or so, the first time only)"; \
	if [ -n "$(UV)" ]; then $(UV) --no-config pip install --quiet --python $(@D)/bin/python --require-hashes -r $<; \
	else $(@D)/bin/python -m pip install --disable-pip-version-check --no-color --require-hashes -r $< | $(PROGRESS); fi
	@touch $@

build/vendors/client-inspector/installed: tests/vendors/clients/inspector/package-lock.json
	@mkdir -p $(@D); cp tests/vendors/clients/inspector/package*.json $(@D)
	@echo "Installing MCP Inspector in $(@D) (half a minute, the first time only)"; cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

lock: ## pin again after pyproject.toml changed (UPGRADE=1: the newest of everything), hashes and no hosts
	@uv="$(UV)"; if [ -z "$$uv" ]; then echo "Installing uv into build/uv"; \
	$(PYTHON) -m venv build/uv && build/uv/bin/python -m pip install --disable-pip-version-check --quiet uv && uv=build/uv/bin/uv; fi; \
	echo "requirements.lock";     "$$uv" pip compile $(COMPILE) pyproject.toml -o requirements.lock; \
	echo "requirements-dev.lock"; "$$uv" pip compile $(COMPILE) pyproject.toml --extra dev -o requirements-dev.lock; \
	echo "requirements-build.lock"; echo hatchling | "$$uv" pip compile $(COMPILE) --constraint requirements-dev.lock - -o requirements-build.lock; \
	for folder in examples/langgraph_sales tests/docs tests/fuzz tests/vendors/adk tests/gateway/oauth/fastmcp_client $(patsubst %/requirements.in,%,$(wildcard examples/clients/*/requirements.in)) $(patsubst %/requirements.in,%,$(wildcard tests/vendors/sdk/*/requirements.in)); do \
	echo "$$folder/requirements.lock"; "$$uv" pip compile $(COMPILE) $$folder/requirements.in -o $$folder/requirements.lock; done
