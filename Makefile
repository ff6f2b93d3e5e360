# Everything runs in .venv, which the first target makes; nothing but Python 3.11+ has to be there.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

# Where this is set, as in many containers, each test process would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-mysql lint format docs night mutants chaos interleavings bench bench-million audit lock clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What the program itself needs, on the versions of a release.
.venv/.program: pyproject.toml release/requirements.lock
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed; name it with PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "installing jq and what it needs into .venv, from pyproject.toml and release/requirements.lock:"
	@$(PYTHON) -m venv .venv
	@sed -n 's/^\([a-z0-9.-]*==[^ ;]*\).*/\1/p' release/requirements.lock > .venv/constraints.txt
	@rm -f .venv/.failed
	@{ $(BIN)/python -m pip install --progress-bar off --disable-pip-version-check --editable . \
		--constraint .venv/constraints.txt || touch .venv/.failed; } \
		| sed -n -e 's/^ *Using cached /  Downloading /' \
			-e 's/^ *Downloading \([a-z0-9_]*-[0-9.]*[0-9]\)[^ ]* (\([^)]*\)).*/  \1 (\2)/p'
	@test ! -e .venv/.failed
	@ln -sf solidjq $(BIN)/jq
	@touch $@

.venv/.ready: .venv/.program
	@echo "installing the tools of the tests and of make lint into .venv"
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev --constraint .venv/constraints.txt
	@touch $@

release/.venv/.ready: .venv/.ready
	$(BIN)/python -m venv release/.venv
	$(BIN)/python -m pip --python release/.venv install --quiet --group audit
	@touch $@

demo: .venv/.program ## Kill workers with real jobs in their hands, then get every job back
	@$(BIN)/jq demo

test: .venv/.ready ## Run every test; starts its own PostgreSQL
	$(BIN)/pytest -n auto --dist loadgroup $(ARGS)

test-mysql: .venv/.ready ## Run the tests of MariaDB on a real MySQL, which is downloaded into .mysql
	$(BIN)/python tests/programs/with_mysql.py $(ARGS)

lint: .venv/.ready ## ruff, mypy strict, import contracts, generated files up to date
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m solidjq_cli.generate --check

format: .venv/.ready ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: .venv/.ready ## Write the generated docs and shell completions anew
	$(BIN)/python -m solidjq_cli.generate
	$(BIN)/python tests/programs/compatibility.py > docs/compatibility.md
	$(BIN)/python tests/programs/top_screens.py docs

night: .venv/.ready ## Leave a made-up night of 5,000 failures in a new database, URL=sqlite:night.sqlite3
	@$(BIN)/python tests/programs/night.py $(URL)

audit: release/.venv/.ready ## Known vulnerabilities of the locked dependencies, dangerous code, a bill of materials
	$(BIN)/ruff check --select S
	release/.venv/bin/python release/audit.py $(ARGS)

lock: release/.venv/.ready ## Write release/requirements.lock anew, with the newest versions that pyproject.toml allows
	@head -2 release/requirements.lock > release/requirements.new
	release/.venv/bin/uv pip compile pyproject.toml --extra top --universal --upgrade --generate-hashes --quiet --no-header \
		--no-annotate --no-emit-index-url --no-emit-find-links --python-version 3.11 >> release/requirements.new
	@mv release/requirements.new release/requirements.lock

mutants: .venv/.ready ## Break lines of the core and print those that no test misses, ARGS='queue --count 20'
	@$(BIN)/python tests/programs/mutants.py $(ARGS)

chaos: .venv/.ready ## Kill, freeze, cut and fill all around jq for 30 minutes a database, ARGS='sqlite --minutes 5 --seed 1'
	@PYTHONPATH=tests:tests/programs $(BIN)/python tests/chaos/driver.py --out docs/chaos $(ARGS)
	@PYTHONPATH=tests $(BIN)/python tests/chaos/report.py

interleavings: .venv/.ready ## Every interleaving of two moves with two preemptions, for hours, ARGS='sqlite --preemptions 1'
	@PYTHONPATH=tests:tests/programs:tests/chaos $(BIN)/python tests/chaos/interleavings.py $(ARGS)

bench: .venv/.ready ## Measure speed beside other job queues and plain SQL
	$(BIN)/python bench/run.py $(ARGS)

bench-million: .venv/.ready ## Measure every command at a million failures: seconds, CPU, memory
	$(BIN)/python bench/million.py $(ARGS)

clean: ## Remove all that make made
	rm -rf .venv .mysql bench/.venv release/.venv dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
