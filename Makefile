# recd: two commands matter. `make demo` records with a simulated robot; `make test` runs the tests.
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint check interop policies soak fuzz systemd storm bench bench-full docs clean env env-test

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env: ## make the virtual environment and install recd
	@.ci/python-env $(VENV)

env-test:
	@.ci/python-env $(VENV) test

demo: env ## record three short episodes with the simulated robot and verify the dataset
	@$(BIN)/recctl demo

DAILY := not soak and not interop and not systemd
test: env-test ## the test suite
	@status=0; \
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not alone and $(DAILY)" || status=1; \
	$(BIN)/python -m pytest -m "alone and $(DAILY)" || status=1; exit $$status

lint: env-test ## lint, format, strict types, import layers
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@cd src && ../$(BIN)/lint-imports --config ../pyproject.toml --no-cache

interop: env-test ## checks with the real lerobot 0.6.1 in an environment of its own
	@tests/interop/run

policies: env-test ## lerobot-record, lerobot-rollout, robot_client and PolicyServer drive a running daemon
	@RECD_INTEROP_MARKS=policies tests/interop/run

soak: env-test ## long torture and fault tests, and property tests with new examples
	@$(BIN)/python -m pytest -m soak
	@$(BIN)/python -m pytest -m "hypothesis and not soak" --hypothesis-profile=default

fuzz: env-test ## 100,000 malformed messages against a daemon that records
	@$(BIN)/python -m pytest -s -m soak tests/e2e/test_fuzz.py

systemd: env-test ## the service under a real systemd, booted in namespaces; needs root
	@VENV=$(VENV) tests/systemd/run

STORM_SEED ?= 1
STORM_FAULTS ?= 1000
storm: env ## faults at random against the real daemon, hours; the result goes into docs/reliability.md
	@mkdir -p storm-data
	@$(BIN)/python -m recd.perf storm --seed $(STORM_SEED) --faults $(STORM_FAULTS) \
	    --directory storm-data --output storm-data/bouts.jsonl; status=$$?; \
	    $(BIN)/python -m recd.perf storm-table --into docs/reliability.md storm-data/bouts.jsonl && exit $$status

bench: env ## measure recd on this machine, under 10 minutes; leave the machine alone meanwhile
	@$(BIN)/python -m recd.perf bench short

bench-full: env ## the same over every load that recd promises, two hours
	@$(BIN)/python -m recd.perf bench full

docs: env-test ## write the references from the models and tables
	@$(BIN)/python -m recd.config.reference > docs/configuration.md
	@$(BIN)/python -m recd.daemon.supervisor.reference > docs/control_api.md

clean: ## remove the environment and everything made by demo and tests
	rm -rf $(VENV) build dist demo-data bench-data storm-data .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
