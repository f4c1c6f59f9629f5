# make demo   train four sparse networks, merge them, write runs/demo/report.html
# make test   everything CI runs: style, types, import direction, tests, docs
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet -c constraints.txt
WORKERS ?= 2

export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint types imports unit docs coverage clean

demo: $(VENV)/.demo
	$(BIN)/regraft demo --out runs/demo

test: lint types imports unit docs

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

imports: $(VENV)/.test
	$(BIN)/lint-imports

unit: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

docs: $(VENV)/.test
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

coverage: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term-missing:skip-covered

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch goes first: a range in another package's requirements must find it installed
$(VENV)/.torch: constraints.txt | $(BIN)/python
	$(PIP) torch
	@touch $@

$(VENV)/.demo: pyproject.toml $(wildcard setup.py) $(VENV)/.torch
	$(PIP) -e '.[report]'
	@touch $@

$(VENV)/.test: pyproject.toml $(wildcard setup.py) $(VENV)/.torch
	$(PIP) -e '.[test,docs]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache src/*.egg-info
