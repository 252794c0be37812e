# What people and .ci/run type. Needs Python 3.11 or newer and make; everything else goes into .venv.
.POSIX:
.PHONY: demo test chaos lint types bench wheel constraints clean

# The Python to begin with; if it is too old, others are looked for.
PYTHON = python3

VENV = .venv
BIN = $(VENV)/bin

# What somebody's shell sets for other projects must not reach into this one's environment.
ALONE = unset PYTHONPATH PYTHONHOME PIP_CONSTRAINT PIP_REQUIREMENT PIP_TARGET PIP_PREFIX PIP_USER;
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The demonstration needs the base, numpy and matplotlib; the rest is for those who change flowtilla.
DEMO = $(VENV)/demo.stamp
DEV = $(VENV)/dev.stamp

demo: $(DEMO)
	@$(ALONE) $(BIN)/python examples/weather/demo.py

# Much of a test is waiting, so as many processes as this share them.
JOBS = 3
test: $(DEV)
	@$(ALONE) $(BIN)/pytest --numprocesses $(JOBS) --dist loadgroup

# A fleet under faults: which, and which runs, follows from SEED; EXECUTOR is local, threads, processes, ray or dask.
MINUTES = 2
EXECUTOR = local
chaos: $(DEV)
	@$(ALONE) PYTHONPATH=tests $(BIN)/python -m chaos $${SEED:+--seed $$SEED} --minutes $(MINUTES) --executor $(EXECUTOR)

lint: $(DEV)
	@$(ALONE) $(BIN)/ruff format --check
	@$(ALONE) $(BIN)/ruff check

types: $(DEV)
	@$(ALONE) $(BIN)/mypy

bench: $(DEV)
	@$(ALONE) for benchmark in benchmarks/*_*.py; do echo "== $$benchmark"; $(BIN)/python "$$benchmark" || exit 1; done

# The wheel is built from the sdist, then installed alone and started.
wheel: $(DEV)
	@rm -rf dist
	@$(ALONE) $(BIN)/python -m build --outdir dist .
	@$(ALONE) alone=$$(mktemp -d) && trap 'rm -rf "$$alone"' EXIT && $(BIN)/python -m venv "$$alone" \
	&& "$$alone/bin/pip" install --quiet --disable-pip-version-check --constraint constraints.txt dist/*.whl \
	&& cd "$$alone" && bin/flowtilla --version \
	&& bin/python -c "import flowtilla, flowtilla_executors, flowtilla_worker"

# Renews every pin: whatever a fresh environment resolves to today, on the oldest Python that is supported.
constraints:
	@$(ALONE) fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && python3.11 -m venv "$$fresh" \
	&& "$$fresh/bin/pip" install --quiet --disable-pip-version-check --editable ".[dev]" \
	&& "$$fresh/bin/pip" freeze --exclude-editable > "$$fresh/constraints.txt" \
	&& cp "$$fresh/constraints.txt" constraints.txt

clean:
	@rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .flowtilla examples/*/.flowtilla
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEV): $(VENV)/made.stamp pyproject.toml constraints.txt
	@echo "installing what development needs into $(VENV)"
	@$(ALONE) $(INSTALL) --editable ".[dev]"
	@touch $(DEV) $(DEMO)

$(DEMO): $(VENV)/made.stamp pyproject.toml constraints.txt
	@echo "installing flowtilla, numpy and matplotlib into $(VENV)"
	@$(ALONE) $(INSTALL) --editable ".[demo]"
	@touch $(DEMO)

$(VENV)/made.stamp:
	@$(ALONE) for python in $(PYTHON) python3.13 python3.12 python3.11; do \
	if "$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	"$$python" -m venv --clear $(VENV) && touch $@; exit; fi; done; \
	echo "flowtilla needs Python 3.11 or newer with the venv module (on Debian: python3-venv);" \
	"looked for $(PYTHON), python3.13, python3.12 and python3.11; name one with: make PYTHON=/path/to/python3" >&2; exit 1
