# make demo | test | test-all | test-floor | install | lint | types | bench | experiments | notebooks | docs
# (PYTHON=python3.12 picks an interpreter)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])' 2>/dev/null)
CONSTRAINTS := constraints/$(if $(filter 311,$(VERSION)),py311,py312).txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WHAT := --constraint $(CONSTRAINTS) --editable '.[dev]'
NOW := $(shell date +%Y%m%d-%H%M%S)
STAMP := $(VENV)/.installed-$(VERSION)

.PHONY: help install demo full table table-full zero-shot-full test test-all test-costs mutants test-floor lint types format bench experiments systems notebooks docs docs-serve docs-install constraints clean

help:
	@echo "make demo         install, then collect, train, evaluate and report on two CPU cores (minutes);"
	@echo "                  SEED_OFFSET=100: seeds 100 to 109 instead of 0 to 9, on the same data"
	@echo "make test         install, then run the test suite but for its dearest tests (15 minutes); test-all: all of it"
	@echo "make mutants      plant bugs in a copy, one by one, and see the tests catch them (half an hour; ONLY=sac)"
	@echo "make test-floor   run a part of it on the lowest versions that are allowed, in an environment of its own"
	@echo "make full         the job of the demo at the size of an accelerator"
	@echo "make table        all offline agents on the same data (an hour or less on two cores); table-full: for accelerators"
	@echo "make zero-shot-full  BREEZE, FB, VC-FB and MC-FB on four tasks of a walker: for accelerators"
	@echo "make install      create $(VENV) with the pinned dependencies"
	@echo "make lint types   ruff; pyright"
	@echo "make bench        measure against peers, write docs/benchmark.md"
	@echo "make experiments  run every experiment at its small scale, write SYSTEMS.md"
	@echo "make notebooks    execute the notebooks at full size"
	@echo "make docs         build the documentation's site into site/; docs-serve shows it while you write"

install: $(STAMP)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "jaxrl_reg needs Python 3.11 or newer; run: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# uv installs the same set ten times faster; pip does it where uv cannot run.
	$(PIP) 'uv==0.13.9' && $(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python $(WHAT) || $(PIP) $(WHAT)
	@touch $@

# From no regulariser (0) to cloning (10), on data of a policy that is half good. The data are the same for every offset,
# as a benchmark's are; the seeds of training and evaluation are not. Faster learning rates than the paper's, since the
# networks are small and the updates few: chosen on seeds 0 to 3 and 1000 to 1005. After 6,000 updates most runs without a
# regulariser have learned too, since the data explore.
SEED_OFFSET ?= 0
demo: install
	$(BIN)/jaxrl-reg sweep --env brax/hopper --agent td3_bc --grid bc_coef=0,0.3,1,10 --dataset medium --collect-steps 64000 \
		--collect-seed 0 --hidden 64,64 --seeds 10 --seed-offset $(SEED_OFFSET) --updates 4000 --batch-size 128 --segments 4 \
		--eval-episodes 5 --set actor_learning_rate=1e-3 --set critic_learning_rate=1e-3 --set tau=0.01 \
		--data-dir runs/demo-data --out runs/demo-$(NOW)

# The same job at the size of an accelerator: 16 seeds x 4 settings, two layers of 256, 200,000 updates.
full: install
	$(BIN)/jaxrl-reg sweep --env brax/hopper --agent rebrac --dataset medium-replay --scale full --seeds 16 \
		--hidden 256,256 --updates 200000 --segments 20 --grid actor_bc_coef=0.0,0.01,0.1,1.0

# Every offline agent on the same data with the same budget, in one table. Run it again to go on where it stopped. The
# learning rates of this scale were chosen on seeds 0 and 1 of another collection.
table: install
	$(BIN)/jaxrl-reg compare --seed-offset 100 --out runs/table

# Hopper and HalfCheetah, 8 seeds, two layers of 256, 200,000 updates: for accelerators.
table-full: install
	$(BIN)/jaxrl-reg compare --scale full --out runs/table-full

# BREEZE and the forward-backward agents at the papers' sizes, for an accelerator: a walker in MJX explored by RND for a
# million steps, 8 seeds, four tasks. The three settings are BREEZE's for walkers. Run it again to go on.
zero-shot-full: install
	$(BIN)/jaxrl-reg compare --scale full --envs planar/walker --datasets rnd --agents breeze,fb,vc_fb,mc_fb \
		--collect-steps 1000000 --seeds 8 --hidden 1024,1024 --batch-size 512 --updates 400000 --segments 40 \
		--eval-episodes 10 --set steps=5 --set train_candidates=9 --set behaviour_ratio=0.1 --out runs/zero-shot-full

# Many processes start: the first leaves its bytecode to the others, whatever the shell says.
SUITE = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
test: install
	$(SUITE) -m 'not long'
	@echo "left out: the $$(wc -l < tests/long.txt) dearest tests, listed in tests/long.txt; make test-all runs them too"

test-all: install
	$(SUITE)

# Measures all tests and chooses anew which are long.
test-costs: install
	costs=$$(mktemp -d) && $(SUITE) --costs=$$costs && $(BIN)/python -m tests.costs $$costs

# On Python 3.11 or 3.12: the lowest NumPy has no wheels for 3.13.
FLOOR_TESTS := tests/losses tests/policies tests/agents/offline/test_golden_iql.py tests/population/test_sweep.py \
	tests/envs/test_envs_planar.py tests/test_jobs.py
test-floor:
	@$(MAKE) --no-print-directory install VENV=.venv-floor CONSTRAINTS=constraints/floor.txt \
		WHAT="--constraint constraints/floor.txt --editable '.[all]' pytest pytest-timeout pytest-xdist hypothesis"
	.venv-floor/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile $(FLOOR_TESTS)

# One at a time, in a copy; ONLY=words chooses those whose file or name has one of them.
mutants: install
	$(BIN)/python -m tests.mutants $(ONLY)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: install
	$(BIN)/python -m benchmarks

experiments: install
	$(BIN)/python -m experiments run --all
	$(BIN)/python -m experiments table

systems: install
	$(BIN)/python -m experiments table

notebooks: install
	$(BIN)/python -m notebooks.execute

# The site, into site/; a link that leads nowhere fails. In an environment of its own.
MKDOCS = NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs
docs: docs-install
	$(MKDOCS) build --strict

docs-serve: docs-install
	$(MKDOCS) serve

docs-install:
	@$(MAKE) --no-print-directory install VENV=.venv-docs WHAT="--constraint $(CONSTRAINTS) --editable '.[all,docs]'"

# Refresh the tested sets; no index address is written into them.
constraints: install
	for v in 11 12; do \
		{ echo "# The set that the tests run against on Python 3.$$v$$( [ $$v = 12 ] && echo ' and 3.13'). Made by: make constraints"; \
		$(BIN)/uv pip compile -q pyproject.toml --extra dev --extra docs --extra logging --extra playground --upgrade \
			--python-version 3.$$v --no-header --no-annotate --no-emit-index-url --no-emit-find-links; } \
		> constraints/py3$$v.txt; done
	{ echo "# The lowest set that a part of the tests runs against (make test-floor), on Python 3.11 and 3.12. Made by: make constraints"; \
		$(BIN)/uv pip compile -q pyproject.toml --extra all --resolution lowest-direct --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links; } > constraints/floor.txt

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist *.egg-info
