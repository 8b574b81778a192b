# Needs Python 3.11 or newer with venv, and a package index. Everything else goes into .venv.
#   make demo          made-up park -> check -> train -> limits -> the hall, where simulated banks race
#   make test          the tests
#   make check         format, lint, import contracts, types, tests
#   make soak          every promise in its long form; SOAK=2000 sets how many examples each
#   make lock          compile requirements.lock anew; LOCK_ARGS=--upgrade takes newer versions
# PYTHON=/path/to/python3 chooses the interpreter that .venv is built from.

SHELL := /bin/sh
PYTHON ?=
SOAK ?= 1000
LOCK_ARGS ?=
BIN := .venv/bin
export UV_SYSTEM_CERTS = 1
export UV_PYTHON_DOWNLOADS = never

.PHONY: demo test check soak lock venv

demo: .venv/.built
	@$(BIN)/jifen demo

test: .venv/.built
	@$(BIN)/python -m pytest -n 2

check: .venv/.built
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/basedpyright
	@$(BIN)/python -m pytest -n 2

soak: .venv/.built
	@JIFEN_SOAK=$(SOAK) $(BIN)/python -m pytest -n 2 -rP -o faulthandler_timeout=0 -m "soak or hypothesis"

# No index, no host and no path stands in the lock; each file is named by its hash alone.
lock: .venv/.built
	@{ echo "# Made by \`make lock\` from pyproject.toml: what the application and its checks run on, Python 3.11 and newer."; \
	   cp requirements.lock .venv/lock.txt && $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	     --no-emit-index-url --no-header --no-annotate --extra dev $(LOCK_ARGS) pyproject.toml -o .venv/lock.txt && \
	   grep -v '^#' .venv/lock.txt; } > .venv/requirements.lock
	@if grep -n '://' .venv/requirements.lock; then echo "the lock names a host" >&2; exit 1; fi
	@cmp -s .venv/requirements.lock requirements.lock || mv .venv/requirements.lock requirements.lock

venv: .venv/.built

# uv installs in seconds what takes pip a minute; it comes from the lock like everything else. It knows neither pip's
# index nor its certificates, so it is told the index, and where it fails pip does the same work.
.venv/.built: requirements.lock pyproject.toml
	@set -e; \
	python=''; \
	for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3 python3.14; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "no Python 3.11 or newer with venv was found; name one: make PYTHON=/path/to/python3" >&2; exit 1; fi; \
	echo "building .venv from requirements.lock with $$($$python -V)"; \
	rm -rf .venv; \
	"$$python" -m venv .venv; \
	index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null || true)}}"; \
	if [ -n "$$index" ]; then UV_DEFAULT_INDEX="$$index"; export UV_DEFAULT_INDEX; fi; \
	awk '/^uv==/ {inside = 1} inside {print} inside && !/\\$$/ {exit}' requirements.lock > .venv/uv.txt; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock || \
	  { echo "uv could not; pip does it, which takes a minute" >&2; \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock; }; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	touch .venv/.built
