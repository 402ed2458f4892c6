# Two commands: `make demo` trains a real model on the emulator, `make test` passes the tests.
# Both set up first; nothing but git, make and Python >= 3.11 is needed.
PYTHON ?= python3
UV = .venv/bin/uv
BIN = .venv/bin

WORKFLOWS = $(wildcard .github/workflows/*.yml docs/examples/*.yml)

.PHONY: setup demo test test-container matrix search smoke-aws check format bench docs clean
setup: .venv/.complete

.venv/.complete: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, $(PYTHON) is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@test -x $(UV) || { $(PYTHON) -m venv .venv && .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.8"; }
	$(UV) sync --quiet --frozen --python .venv/bin/python
	@touch $@

demo: setup
	$(BIN)/runctl-action train --emulate examples/digits/train.py -- --epochs 5

# Four for two cores: most of it is waiting for hosts. In the order of the files: the long ones come first.
test: setup
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

# The image, built and run as GitHub's runner does; needs docker or podman, and a base image or the means to make one.
test-container: setup
	RUNCTL_TEST_CONTAINER=$${RUNCTL_TEST_CONTAINER:-1} $(BIN)/pytest tests/container

matrix: setup
	RUNCTL_TEST_MATRIX=1 $(BIN)/pytest -n 3 --dist worksteal tests/integration/run/test_fault_matrix.py
	RUNCTL_TEST_MATRIX=1 $(BIN)/pytest -n 4 --dist worksteal tests/integration/run/test_kill_matrix.py

# What hypothesis searches in seconds otherwise, in numbers for a night.
search: setup
	RUNCTL_TEST_EXAMPLES=100000 $(BIN)/pytest -n 2 --timeout 7200 tests/unit/hook
	RUNCTL_TEST_EXAMPLES=10000 $(BIN)/pytest -n 2 --timeout 7200 tests/unit/run/test_explored.py tests/unit/hostile

# On a real account, for a few cents: RUNCTL_SMOKE_AWS=1 make smoke-aws
smoke-aws: setup
	$(BIN)/python scripts/smoke_aws.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions action.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows $(WORKFLOWS)
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --quiet --offline --config .github/zizmor.yml .github action.yml docs/examples/*.yml
	$(BIN)/hadolint Dockerfile
	$(BIN)/cfn-lint --include-checks I -- infra/runctl.yaml
	$(BIN)/python scripts/actionlint.py $(WORKFLOWS)

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m benchmarks.emulator
	$(BIN)/python -m benchmarks.sync
	$(BIN)/python -m benchmarks.ending
	$(BIN)/python -m benchmarks.hook

docs: setup
	$(BIN)/python scripts/settings_table.py
	$(BIN)/python scripts/action_yml.py
	$(BIN)/python scripts/fault_table.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
