# Every habit is a target; plain `make` lists them.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore
# Tests and the demo reach nodes over real SSH.
SSHD := PATH="$$PATH:/usr/sbin" command -v sshd >/dev/null || tools/system-packages openssh-server
# Tests put real web servers in front of a real server; without them they are skipped.
WEB := PATH="$$PATH:/usr/sbin" && command -v nginx >/dev/null && command -v apache2 >/dev/null || tools/system-packages nginx-light apache2-bin
# Tests of relays lay networks of their own; without it they are skipped.
IP := PATH="$$PATH:/usr/sbin:/sbin" command -v ip >/dev/null || tools/system-packages iproute2
T ?=
B ?=

.PHONY: help
help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: setup
setup: $(VENV)/.ready ## Make .venv with the locked dependencies

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it with PYTHON=..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -c 'import ensurepip' 2>/dev/null || tools/system-packages python3-venv
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the locked dependencies into $(VENV); this takes a minute or two, once."
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: demo
demo: setup ## Play the main job on this machine, then keep serving (ONCE=1: stop after the tour)
	@$(SSHD) || true
	@$(BIN)/python -m tools.demo $(if $(ONCE),--once)

.PHONY: serve
serve: setup ## Run a server on ./server-data
	@$(BIN)/quarterdeckd serve --data-dir server-data

.PHONY: agent
agent: setup ## Build the agent as one file: build/quarterdeck-agent.pyz
	@$(BIN)/python -m tools.build_agent

.PHONY: check
check: setup ## Format, lint, types, walls, generated documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tools.ledger --check

.PHONY: fix
fix: setup ## Format, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: test
test: setup $(if $(T),,test-pg15) ## Run all tests, those of the storage also on PostgreSQL 15 (T=tests/core for some)
	@$(SSHD)
	@$(IP) || true
	@$(WEB) || true
	$(BIN)/python -m pytest -n auto --dist loadgroup $(T)

.PHONY: test-pg15
test-pg15: setup ## Run the tests of the storage on a private PostgreSQL 15 of the system
	$(BIN)/python -m tools.postgresql15 $(BIN)/python -m pytest -n auto -q --ignore tests/storage/test_embedded.py tests/storage tests/services

.PHONY: ledger
ledger: setup ## Write docs/api/ and docs/settings.md from the code
	@$(BIN)/python -m tools.ledger

.PHONY: bench
bench: setup ## Run the benchmarks and print their tables (B="agent_run generation" for some)
	@$(BIN)/python -m bench $(B)

.PHONY: lock
lock: setup ## Resolve the dependencies anew into requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 --extra dev pyproject.toml -o requirements.lock

.PHONY: clean
clean: ## Remove what the other targets made, except ./server-data
	rm -rf $(VENV) build demo-data
