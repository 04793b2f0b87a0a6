# make train   train on drawn faces, from nothing           make test        prove that everything works: ten minutes
# make pics    draw the pictures of the pages again         make test-fast   the same without training or processes
# make lab     open the course in JupyterLab                make test-all    with the course, several hosts, a browser
# make notebooks   run the course, keep its outputs         make lint        style and types alone
# make course-html   the course as pages to read offline      make docs        guide and reference as pages, in build/docs
# make train-ddp   the same training shared by two processes on this machine
# make demo    the page in docs/demo anew: its network (RUN=runs/mine: of a run), its faces, and with npm what runs it
# make test-rest   what `make test-all` does beyond `make test`; make test-browser is a part of that: Debian's chromium, npm
# make mutants   whether the tests notice the deliberate faults of tests/mutants.py; ARGS="margin" those of that name
PYTHON ?= python3
BIN := .venv/bin

# Two files of tests at a time, each process with one thread: where a test waits, the other has the core.
WORKERS ?= 2
RUN ?= drawn_crowd
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder --durations=15

# `make test LINT=` with old packages: their type hints are not those of the newest, by which types are checked.
LINT ?= lint

.PHONY: train train-ddp lab notebooks course-html test test-fast test-all test-rest test-browser mutants lint pics docs demo clean

train: .venv/ready
	$(BIN)/python -m arcface_edu.train $(ARGS)

# Each process has one core and reads for itself: a reader beside it would only make it late.
train-ddp: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc_per_node=2 -m arcface_edu.train drawn_faces batch_size=32 num_workers=0 \
		output=runs/drawn_faces_ddp $(ARGS)

lab: .venv/ready
	$(BIN)/jupyter lab notebooks/00_the_problem.ipynb

notebooks: .venv/ready
	$(BIN)/python notebooks/make_notebooks.py $(ARGS)

course-html: .venv/ready
	$(BIN)/python notebooks/make_notebooks.py --html build/course

test: .venv/ready $(LINT)
	$(PYTEST) --dist loadfile -m "not full and not browser"

test-fast: .venv/ready $(LINT)
	$(PYTEST) --dist loadfile -m "not slow and not full and not browser"

test-all:
	$(MAKE) test
	$(MAKE) test-rest

test-rest: .venv/ready
	$(PYTEST) --dist loadgroup -m "full or browser"

test-browser: .venv/ready
	$(PYTEST) --dist loadgroup -m browser

mutants: .venv/ready
	$(BIN)/python tests/mutants.py $(ARGS)

lint: .venv/ready
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/python -m mypy --no-error-summary

pics: .venv/ready
	@test -f runs/drawn_faces/model.pt || $(MAKE) train
	@test -f runs/softmax/model.pt || $(MAKE) train ARGS="loss=softmax output=runs/softmax"
	$(BIN)/python pics/make_pics.py

docs: .venv/ready
	$(BIN)/python -m sphinx -W --keep-going --quiet --jobs auto docs build/docs
	$(BIN)/python notebooks/make_notebooks.py --html build/docs/course
	@echo "open build/docs/index.html"

demo: .venv/ready
	$(BIN)/python docs/demo/make_demo.py $(RUN)

.venv/ready: pyproject.toml
	@.ci/set_up "$(PYTHON)"

clean:
	rm -rf .venv
