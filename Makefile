# The one list of commands, for people and for CI. Every target makes the environment first, if it is not up to date.
PYTHON ?= python3
CONTAINER ?= docker
VENV := .venv
BIN := $(VENV)/bin

# Which build of torch the environment gets; what was chosen last holds until another TORCH is given.
#   pip    the one that pip finds under your own index settings: on Linux usually the CUDA build
#   cpu    without CUDA: a tenth of the download
#   cuda   the CUDA build that the default index has for Linux; it runs on a machine without a GPU, too
#   auto   the one that fits this machine's GPU driver; cpu without a driver
#   cuNNN  for that CUDA version, such as cu128 for an older driver
# uv knows where each build of torch is, so no address has to be written down here. It reads UV_* settings, not pip's.
TORCH ?= $(or $(patsubst $(VENV)/.torch-%,%,$(firstword $(wildcard $(VENV)/.torch-*))),pip)
# A foreign TORCH in the environment is nothing to `help` and `clean`.
ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),help)),)
ifneq ($(words $(TORCH)) $(filter-out pip cpu cuda auto cu1%,$(TORCH)),1 )
$(error TORCH=$(TORCH) is unknown: use pip, cpu, cuda, auto, or a CUDA version such as cu128)
endif
endif
UV_TORCH := $(filter-out pip,$(TORCH))
UV_FLAGS := $(patsubst %,--torch-backend=%,$(filter-out cuda,$(UV_TORCH)))

# An image has the build that is asked for with it, whatever the environment here has; else the Dockerfile's own, CUDA's.
IMAGE_TORCH := $(if $(filter file,$(origin TORCH)),,$(filter-out pip cuda,$(TORCH)))
IMAGE_BASE := $(or $(BASE),$(if $(filter cpu,$(IMAGE_TORCH)),python:3.12-slim))
IMAGE_ARGS := $(IMAGE_TORCH:%=--build-arg TORCH=%) $(IMAGE_BASE:%=--build-arg BASE=%)

CHOSEN := $(VENV)/.torch-$(TORCH)
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
CLIENTS := $(VENV)-clients
READY_CLIENTS := $(CLIENTS)/.ready
LM_EVAL := $(VENV)-lm-eval
READY_LM_EVAL := $(LM_EVAL)/.ready
OTHER_TORCH := $(VENV)-torch-$(TORCH_VERSION)
PACKAGES := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
PIP := $(BIN)/python -m pip --disable-pip-version-check

CPP := $(wildcard vfastml/text_engine/cpu_kernels/*.h vfastml/text_engine/cpu_kernels/*.cpp)

.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

# Another TORCH is another environment: what CUDA's build brought along would stay behind.
$(CHOSEN):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "VFastML needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear $(VENV)
ifneq ($(UV_TORCH),)
	$(PIP) install --quiet --constraint requirements-dev.txt uv
	env -u UV_TORCH_BACKEND $(BIN)/uv pip install --python $(BIN)/python $(UV_FLAGS) "$$(grep '^torch==' requirements.txt)"
endif
	@touch $(CHOSEN)

$(READY): $(CHOSEN) requirements.txt pyproject.toml
	@echo "Installing into $(VENV); torch is the large part."
	$(PIP) install -r requirements.txt
	$(PIP) install --quiet --no-deps --editable .
	@touch $(READY)

$(READY_DEV): $(READY) requirements-dev.txt
	$(PIP) install -r requirements.txt -r requirements-dev.txt
	@touch $(READY_DEV)

$(READY_CLIENTS): $(READY_DEV) requirements-clients.txt requirements-dev.txt
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(CLIENTS)
	$(BIN)/uv pip install --quiet --python $(CLIENTS)/bin/python -r requirements-clients.txt
	@touch $(READY_CLIENTS)

# Triton is torch's own there: its builds for CUDA name the release that they need.
$(OTHER_TORCH)/.ready: $(READY_DEV) requirements.txt requirements-dev.txt
	$(if $(TORCH_VERSION),,$(error Name the release: make test-torch TORCH_VERSION=2.12.0))
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(OTHER_TORCH)
	grep -hv '^triton==' requirements.txt requirements-dev.txt > $(OTHER_TORCH)/requirements.txt
	echo 'torch==$(TORCH_VERSION) $(WITH)' | tr ' ' '\n' > $(OTHER_TORCH)/overrides.txt
	$(BIN)/uv pip install --quiet --python $(OTHER_TORCH)/bin/python $(UV_FLAGS) triton \
		-r $(OTHER_TORCH)/requirements.txt --override $(OTHER_TORCH)/overrides.txt
	@touch $@

# A .pth file lets in what the product's environment has: torch is not installed twice.
$(READY_LM_EVAL): $(READY_DEV) requirements-lm-eval.txt
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LM_EVAL)
	$(BIN)/uv pip install --quiet --python $(LM_EVAL)/bin/python -r requirements-lm-eval.txt
	$(BIN)/python $(PACKAGES) > "$$($(LM_EVAL)/bin/python $(PACKAGES))/product.pth"
	@touch $(READY_LM_EVAL)

install: $(READY_DEV)  ## make the environment and install everything into it, also for development

serve: $(READY)  ## run the gateway and the model server, and say how to call them; TORCH=cpu or cuda chooses the build of torch
	@exec $(BIN)/python -m prebuilt_apps.openai $(ARGS)

test: $(READY_DEV)  ## run the tests
	$(BIN)/python -m pytest -m "not slow and not package and not clients and not lm_eval and not images and not faults" $(ARGS)

test-slow: $(READY_DEV)  ## run the tests that take long
	$(BIN)/python -m pytest -m slow $(ARGS)

test-package: $(READY_DEV)  ## build the wheel, install it elsewhere, and serve from there
	$(BIN)/python -m pytest -m package $(ARGS)

test-clients: $(READY_CLIENTS)  ## run the clients that people use against a real service
	$(CLIENTS)/bin/python -m pytest -m clients tests/clients --service-python $(BIN)/python $(ARGS)

test-lm-eval: $(READY_LM_EVAL)  ## compare lm-eval's own scores with those that it gets from a real service
	$(LM_EVAL)/bin/python -m pytest -m lm_eval tests/clients/lm_eval --service-python $(BIN)/python $(ARGS)

test-images: $(READY_DEV)  ## build both images with buildah, and run them with podman
	$(BIN)/python -m pytest -m images $(ARGS)

test-torch: $(OTHER_TORCH)/.ready  ## run what is computed with another release of torch: TORCH_VERSION=2.12.0
	$(OTHER_TORCH)/bin/python -m pytest -m "not slow" $(or $(ARGS),tests/text_engine tests/test_llm.py)

faults: $(READY_DEV)  ## make each fault of the table in docs/operations.md, and write down what was measured
	$(BIN)/python -m pytest -m faults tests/faults --fault-table docs/operations.md $(ARGS)

security: $(READY_DEV)  ## run the tests that prove the rules of docs/security.md, and write down which they are
	$(BIN)/python -m pytest -m rule --security-table=docs/security.md $(ARGS)

chaos: $(READY_DEV)  ## break things at random under load, and check that every request has its one right end
	$(BIN)/python -m tests.chaos $(ARGS)

fuzz: $(READY_DEV)  ## send malformed HTTP and malformed frames to a running service
	$(BIN)/python -m tests.fuzz $(ARGS)

fuzz-decoders: $(READY_DEV)  ## change bytes for all decoders by what the code does with them: ARGS="--seconds 600"
	$(BIN)/python -m tests.fuzz.decoders $(ARGS)

fuzz-described: $(READY_DEV)  ## send what is made from our own OpenAPI document to a running service: ARGS="--seconds 600"
	$(BIN)/python -m tests.fuzz.described $(ARGS)

soak: $(READY_DEV)  ## mixed traffic for 20 minutes; memory, descriptors and threads must stay flat
	$(BIN)/python -m tests.soak $(ARGS)

lint: $(READY_DEV)  ## check style and import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP)

types: $(READY_DEV)  ## check types
	$(BIN)/mypy

format: $(READY_DEV)  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

wheel: $(READY_DEV)  ## build the sdist and the wheel into dist/
	$(BIN)/python -m build

images:  ## build vfastml-api and vfastml-model; TORCH and BASE are the latter's, CONTAINER=podman builds with podman
	$(if $(filter auto,$(IMAGE_TORCH)),$(error TORCH=auto sees no GPU driver while an image is built: name the build))
	$(CONTAINER) build $(ARGS) --file Dockerfile.api --tag vfastml-api .
	$(CONTAINER) build $(IMAGE_ARGS) $(ARGS) --file Dockerfile.model --tag vfastml-model .

clean:  ## remove the environment, builds and caches
	rm -rf $(VENV) $(VENV)-torch-* $(CLIENTS) $(LM_EVAL) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help install serve test test-slow test-package test-clients test-lm-eval test-images test-torch faults security chaos fuzz fuzz-decoders fuzz-described soak lint types format wheel images clean
