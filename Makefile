# Each target does all of its own set-up. PYTHON picks the interpreter (3.11 or newer); VENV the folder.
VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
READY := $(VENV)/.ready

.PHONY: help demo test toxiproxy check clean

help:
	@echo "make demo   five servers, three workers, two faults, one verdict"
	@echo "make test   ruff, mypy --strict and the whole test suite"
	@echo "make clean  remove the virtual environment"

demo: $(READY)
	@$(VENV)/bin/redlock demo

test: check toxiproxy
	$(VENV)/bin/pytest -n auto --dist loadfile -m "not alone" $(PYTEST)
	$(VENV)/bin/pytest -m alone $(PYTEST)

# The proxy server of the chaos campaigns: from the PATH, or built with Go; without either its tests are skipped.
toxiproxy: $(READY)
	@$(VENV)/bin/python -m chaos.live.toxiproxy

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "redlock needs Python 3.11 or newer on the PATH, or PYTHON=/path/to/one"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments: on Debian, apt-get install python3-venv"; exit 1; }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV)
