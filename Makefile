# The one list of commands, for people and for CI. Every target makes the environment first, if it is not up to date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "VFastML needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); torch is the large part."
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(READY)

install: $(READY)  ## make the environment and install everything into it

serve: $(READY)  ## run the gateway and the model server, and say how to call them
	@exec $(BIN)/python -m prebuilt_apps.openai $(ARGS)

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: $(READY)  ## run the tests that take long
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(READY)  ## check style and import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## check types
	$(BIN)/mypy

format: $(READY)  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help install serve test test-slow lint types format clean
