# Every target sets itself up: the virtual environment, the packages, all of it. Nothing else is needed than Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
COVERAGE := --cov --cov-report=term --cov-fail-under=90

.PHONY: help setup demo test test-long test-all lint bench clean

help:
	@echo "make demo      a folder of pictures becomes a LoRA, on this machine, in minutes"
	@echo "make test      the test suite (under 10 minutes on 2 cores)"
	@echo "make test-all  the suite and everything that takes longer"
	@echo "make lint      ruff, mypy --strict"
	@echo "make bench     training speed against a plain diffusers + peft loop"

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

setup: $(STAMP)

demo: $(STAMP)
	$(BIN)/tunesmith demo --out demo-output

test: $(STAMP)
	$(PYTEST) -n $(WORKERS) -m "not long" $(COVERAGE)

# One process at a time: these measure memory and seconds.
test-long: $(STAMP)
	$(PYTEST) -m long -rPs --durations=0 --durations-min=1

test-all: test test-long

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks.training_speed

clean:
	rm -rf $(VENV) demo-output .coverage* .pytest_cache .mypy_cache .ruff_cache
