# make demo   train four sparse networks, merge them, write runs/demo/report.html
# make test   everything CI runs: style, types, import direction, tests, docs
# make wheel  the sdist and a wheel for any Linux, built, looked into, and installed in an empty environment
# make lowest the tests with the oldest versions of the dependencies that pyproject.toml allows
# make audit  known vulnerabilities of the pinned packages; needs the network, run before each release
# make flower the tests that need Flower, whose requirements exclude those of the other tests: a venv of its own
PYTHON ?= python3
VENV   ?= .venv
FLOWER ?= .venv-flower
RELEASE ?= .venv-release
LOWEST ?= .venv-lowest
AUDIT  ?= .venv-audit
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet -c constraints.txt
WORKERS ?= 2

export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint types imports unit docs coverage flower lowest wheel audit clean

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
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/devices

docs: $(VENV)/.test
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

coverage: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/devices --cov --cov-report= --cov-fail-under=0
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --cov --cov-append --cov-report=term-missing:skip-covered

flower: $(FLOWER)/.test
	$(FLOWER)/bin/python -m pytest tests/federated/flower src/regraft/federated/flower

lowest: $(LOWEST)/.test
	$(LOWEST)/bin/python -m pytest tests -m "not slow" -n $(WORKERS) --dist loadfile \
	  --ignore tests/integrations --ignore tests/report --ignore tests/release --ignore tests/test_docs.py

# a package that is skipped is no package without vulnerabilities: --strict
audit:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet pip-audit
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

wheel: $(RELEASE)/.tools
	release/build.sh $(RELEASE)
	release/try.sh dist $(PYTHON)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch goes first: a range in another package's requirements must find it installed
$(VENV)/.torch: constraints.txt | $(BIN)/python
	$(PIP) torch
	@touch $@

# what an installation in place is made of: the version is in its metadata, the kernels are compiled
INSTALLED := pyproject.toml setup.py src/regraft/version.py $(wildcard src/regraft/kernels/csrc/*)

$(VENV)/.demo: $(INSTALLED) $(VENV)/.torch
	$(PIP) -e '.[report]'
	@touch $@

$(VENV)/.test: $(INSTALLED) $(VENV)/.torch
	$(PIP) -e '.[test,docs]'
	@touch $@ $(VENV)/.demo

$(RELEASE)/.tools: release/requirements.txt
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet -r release/requirements.txt
	@touch $@

$(LOWEST)/.test: pyproject.toml release/lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet -c release/lowest.txt torch
	$(LOWEST)/bin/python -m pip install --quiet -c release/lowest.txt -e '.[report,images]' pytest pytest-xdist hypothesis
	@touch $@

$(FLOWER)/.test: pyproject.toml constraints.txt constraints-flower.txt
	$(PYTHON) -m venv $(FLOWER)
	sed -E '/^(rich|ray)==/d' constraints.txt | cat - constraints-flower.txt > $(FLOWER)/constraints.txt
	$(FLOWER)/bin/python -m pip install --quiet -c $(FLOWER)/constraints.txt torch
	$(FLOWER)/bin/python -m pip install --quiet -c $(FLOWER)/constraints.txt \
	  -e '.[federated,federated-simulation]' pytest hypothesis
	@touch $@

clean:
	rm -rf $(VENV) $(FLOWER) $(RELEASE) $(LOWEST) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache src/*.egg-info
