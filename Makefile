# All anyone needs; `make` alone lists it.

# The Python that makes .venv: 3.11 to 3.13.
PYTHON ?= $(shell command -v python3.11 >/dev/null && echo python3.11 || echo python3)

VENV := .venv
BIN := $(VENV)/bin
SAMPLES := $(addprefix assets/samples/,real.mp4 fake.mp4 two_faces.mp4 no_face.mp4)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test check bench app clean

help:
	@echo 'make setup   install Tellframe into .venv'
	@echo 'make demo    judge the sample clips; annotated videos go to out/demo'
	@echo 'make test    run the tests (installs the training and test packages first)'
	@echo 'make check   formatting, lint and types (installs the same)'
	@echo 'make bench   measure this machine at 1280x720; figures go to out/bench.json'
	@echo 'make app     open the web page'
	@echo 'make clean   remove .venv, out and every cache'

setup: $(VENV)/.base

demo: $(VENV)/.base
	@mkdir -p out
	@$(BIN)/tellframe video $(SAMPLES) --save-video out/demo
	@echo
	@echo 'Annotated videos are in $(CURDIR)/out/demo:'
	@ls out/demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

bench: $(VENV)/.base
	@mkdir -p out
	@$(BIN)/tellframe bench assets/samples/real.mp4 --json out/bench.json
	@echo
	@echo 'All figures are in $(CURDIR)/out/bench.json'

app: $(VENV)/.base
	@$(BIN)/tellframe app

# A stamp is as old as the install: nothing is installed again until pyproject.toml changes.
$(VENV)/.base: pyproject.toml
	@.ci/check-system $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --editable '.[train,dev]'
	@touch $@

clean:
	rm -rf $(VENV) out build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
