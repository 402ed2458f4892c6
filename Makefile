# Two commands: `make demo` trains a real model on the emulator, `make test` passes the tests.
# Both set up first; nothing but git, make and Python >= 3.11 is needed.
PYTHON ?= python3
UV = .venv/bin/uv
BIN = .venv/bin

.PHONY: setup demo test check format bench docs clean
setup: .venv/.complete

.venv/.complete: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, $(PYTHON) is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@test -x $(UV) || { $(PYTHON) -m venv .venv && .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.8"; }
	$(UV) sync --quiet --frozen --python .venv/bin/python
	@touch $@

demo: setup
	$(BIN)/runctl-action train --emulate examples/digits/train.py -- --epochs 5

test: setup
	$(BIN)/pytest -n 2 --dist loadfile

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m benchmarks.emulator
	$(BIN)/python -m benchmarks.sync

docs: setup
	$(BIN)/python scripts/settings_table.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
