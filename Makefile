# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Each installs what it needs, once, and says what it is doing.

PYTHON ?= python3
# On a tree whose lock has aged, a mirror has newer packages only: then those, and it says so.
export RLM_DEBIAN_PACKAGES ?= pinned-or-newest
# "editable" for work on the source; "wheel" installs what users install (CI does).
INSTALL ?= editable

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(INSTALL)
LOCAL_STAMP := $(VENV)/.installed-local-model
FUZZ_STAMP := $(VENV)/.installed-fuzzer
FUZZ_SECONDS ?= 60
COMPILE := uv pip compile -q --generate-hashes --universal --no-emit-index-url --no-header
SOURCES := $(shell git ls-files orchestrator sandbox_image proto docker 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help setup demo gvisor test test-runc test-gvisor check test-unit test-local-model local-model lock lock-debian wheel sbom wire mutants fuzz threat-model promises clean

help: ## Says what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

setup: $(STAMP) ## Python packages, a Docker engine, the sandbox image; does nothing the second time
	@$(BIN)/rlm setup

demo: setup ## Answers questions over more than 10 million characters, and checks the answers
	@if $(BIN)/python examples/demo.py --needs-local-model; then $(MAKE) --no-print-directory local-model; fi
	@$(BIN)/python examples/demo.py

# What an operator runs never installs it; without it half of what is promised would go untried.
gvisor: setup ## gVisor, registered with the engine where it can be had; says so where it cannot
	@$(BIN)/rlm setup --gvisor || echo "==> ATTENTION: gVisor cannot be registered here (see above);" \
		"the tests of the walls run under runc alone"

test: gvisor ## Every test but those of the local model, under gVisor those of what a kernel holds
	@echo "==> Running the tests"
	@$(BIN)/pytest --cov --cov-report=term:skip-covered -q \
		-m "not local_model and not gvisor_in_full"

test-runc: setup ## Likewise without gVisor
	@$(BIN)/pytest -q -m "not local_model and not gvisor"

test-gvisor: gvisor ## Every test that runs under both runtimes, under gVisor: a quarter of an hour
	@$(BIN)/pytest -q -m gvisor

test-unit: $(STAMP) ## The tests that need no engine
	@$(BIN)/pytest -q tests/unit tests/contract -m "not docker"

check: $(STAMP) ## Style, types, import rules, docstrings of tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/interrogate -q tests

local-model: $(LOCAL_STAMP) ## The engine and the weights of a small model that runs on this machine
	@$(BIN)/rlm model fetch

test-local-model: setup local-model ## The tests against the real local model
	@$(BIN)/pytest -q tests/local_model -m local_model

lock: lock-debian ## Pins every package again, with hashes; needs uv
	$(COMPILE) pyproject.toml --group dev --python-version 3.11 -o requirements.lock
	$(COMPILE) pyproject.toml --constraint requirements.lock --python-version 3.11 \
		-o requirements-runtime.lock
	$(COMPILE) pyproject.toml --extra local --constraint requirements.lock --python-version 3.11 \
		-o requirements-local.lock
	$(COMPILE) --group fuzz --python-version 3.11 -o requirements-fuzz.lock
	$(COMPILE) docker/requirements.in --python-version 3.13 -o docker/requirements.lock
	$(COMPILE) docker/sbom-tools.in --python-version 3.11 -o docker/sbom-tools.lock
	$(COMPILE) sbom/requirements.in --python-version 3.11 -o sbom/requirements.lock
	@$(BIN)/python -B sbom/describe_wheel.py

lock-debian: $(STAMP) ## Pins the image's Debian packages again: for when a mirror has lost them
	@$(BIN)/python -B docker/lock_packages.py

wheel: $(STAMP) ## The wheel, into dist/: the same file whenever it is built from the same tree
	@rm -f dist/*.whl && $(BIN)/hatchling build -t wheel >/dev/null
	@sha256sum dist/*.whl

sbom: setup ## Bills of materials (CycloneDX) of the wheel and of the image, into dist/
	@mkdir -p dist && cp sbom/rlm_sandbox.cdx.json dist/
	@$(BIN)/rlm image sbom >dist/rlm_sandbox_image.$$(uname -m).cdx.json
	@ls dist/*.cdx.json

wire: $(STAMP) ## Generates the wire code from the contract
	PYTHON=$(CURDIR)/$(BIN)/python ./proto/generate.sh

mutants: setup ## Takes each hardening flag out once, and says which test misses it
	@cd tests && ../$(BIN)/python -m support.mutation_run

fuzz: $(FUZZ_STAMP) ## Looks for inputs that break a parser, FUZZ_SECONDS (60) for each
	@cd tests && ../$(BIN)/python -m support.fuzz_run --seconds $(FUZZ_SECONDS)

threat-model: $(STAMP) ## Writes the generated half of docs/threat-model.md
	@cd tests && ../$(BIN)/python -m support.threat_model

promises: $(STAMP) ## Writes the figures of docs/specification.md from docs/figures
	@cd tests && ../$(BIN)/python -m support.promises

clean: ## Removes the virtual environment and every cache of the tools
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage dist

$(VENV)/bin/pip:
	@echo "==> Making a virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; pass one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/.installed-editable: requirements.lock pyproject.toml | $(VENV)/bin/pip
	@echo "==> Installing the Python packages of requirements.lock (about a minute)"
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.installed-*; touch $@

$(VENV)/.installed-wheel: requirements.lock pyproject.toml $(SOURCES) | $(VENV)/bin/pip
	@echo "==> Installing the Python packages of requirements.lock (about a minute)"
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@echo "==> Building the wheel and installing it"
	@rm -rf dist && $(BIN)/hatchling build -t wheel >/dev/null
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --force-reinstall dist/*.whl
	@rm -f $(VENV)/.installed-*; touch $@

$(LOCAL_STAMP): requirements-local.lock | $(STAMP)
	@echo "==> Installing the engine of the local model"
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-local.lock
	@touch $@

$(FUZZ_STAMP): requirements-fuzz.lock | $(STAMP)
	@echo "==> Installing the fuzzer"
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-fuzz.lock || { \
		echo "atheris has wheels for Python 3.11 to 3.14 on Linux, x86-64. Without it nothing new is looked for;"; \
		echo "what was found so far is replayed by the tests on any machine."; exit 1; }
	@touch $@
