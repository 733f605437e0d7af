# The contributor's manual. `make demo` and `make test` work from a fresh clone; each sets up what it needs in .venv.
#
#   make demo        a whole network on this machine: upload, kill a node, download, compare  (ARGS="--keep FILE")
#   make test        everything CI checks: format, lint, types, import contracts, tests
#   make test-all    the same, with the tests that take longer
#   make fuzz        the fuzz tests with far more examples, new ones in every run  (FUZZ_EXAMPLES=5000 ARGS="-k yamux")
#   make lint        format, lint, types, import contracts
#   make format      mend the format and what lint can mend
#   make bench       the benchmarks: they print ratios and CPU seconds, and are never part of the tests  (ARGS=catalogue: the statements)
#   make scenarios   all stories: simulated ones and random lives of a month in virtual time (LIVES=100 JOBS=2), then those of real processes
#                    that fail, on this machine and in network namespaces with NAT
#   make netlab      of those in network namespaces the two quick ones, and the tests of the laboratory itself; part of make test
#   make docs        write the generated reference pages again
#   make proto       generate the protobuf module again from storage.proto
#   make schema      write the golden schema.sql again from the migrations
#   make clean       remove the virtual environment and all caches

BIN := .venv/bin
ARGS ?=
# Processes that share the tests, each with a PostgreSQL of its own; `make test WORKERS=0` runs all in one, as a debugger wants it.
WORKERS ?= auto
FUZZ_EXAMPLES ?= 5000
LIVES ?= 100
JOBS ?= 2
# In fresh namespaces, where nothing else can be reached. Ends with 77 and a reason where the kernel or a container refuses those.
NETLAB := $(BIN)/python -m scenarios.netlab $(BIN)/python -m pytest scenarios/netlab/stories tests/netlab -n 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all fuzz lint format bench scenarios netlab netlab-tools docs proto schema clean

help:
	@sed -n 's/^#   //p' Makefile

setup: .venv/.synced

.venv/.synced: pyproject.toml uv.lock tools/setup.sh
	@sh tools/setup.sh

demo: setup
	$(BIN)/fsn demo $(ARGS)

test: lint
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not slow and not netns" $(ARGS)
	$(MAKE) netlab

test-all: test
	$(BIN)/pytest -m "slow and not netns" $(ARGS)
	$(NETLAB) -m "netns and slow"

netlab: setup netlab-tools
	$(NETLAB) -m "netns and not slow"

netlab-tools:
	@sh tools/netlab.sh

fuzz: setup
	FSN_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/pytest -m fuzz --hypothesis-profile=fuzz $(ARGS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m bench $(ARGS)

scenarios: setup
	$(BIN)/python -m scenarios --lives $(LIVES) --jobs $(JOBS)
	$(BIN)/pytest -m slow tests/faults tests/scenarios tests/sim $(ARGS)
	@sh tools/netlab.sh || true
	$(NETLAB) -m netns -rP || [ $$? = 77 ]

docs: setup
	$(BIN)/python tools/reference.py

proto: setup
	$(BIN)/python -m grpc_tools.protoc -I src --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--python_out=src --mypy_out=quiet:src src/fsn/p2p/wire/storage.proto src/fsn/p2p/wire/discovery.proto

schema: setup
	UPDATE_SCHEMA=1 $(BIN)/pytest -q tests/test_migrations.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
