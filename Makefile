# Both commands work on a fresh machine with python3, venv and pip; each makes the environment it needs.
PYTHON ?= python3
VENV ?= .venv
OUT ?= equivae-demo
BIN := $(VENV)/bin

.PHONY: demo test lint docs clean

demo: $(VENV)/.demo
	$(BIN)/equivae demo --output_dir $(OUT)

test: lint
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The site at http://127.0.0.1:8000, made anew at every change; the tests build it with --strict.
docs: $(VENV)/.test
	$(BIN)/mkdocs serve

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first: its CPU build is chosen by the version alone, before anything else asks for it.
$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/pip install -q -c constraints.txt -e ".[dev,docs]"
	touch $@

clean:
	rm -rf $(VENV) equivae-demo build dist .pytest_cache .mypy_cache .ruff_cache
