# make train   train on drawn faces, from nothing           make test        prove that everything works
# make pics    draw the pictures of README again            make test-fast   the same without training runs
# make train-ddp   the same training shared by two processes on this machine
# make lab     open the course in JupyterLab                make notebooks   run the course, keep its outputs
# make course-html   the course as pages to read offline
# make test-browser   what needs a browser: Debian's chromium, and npm
# make demo    the page in docs/demo anew: its network, its faces, and with npm the program that runs it
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train train-ddp lab notebooks course-html test test-fast test-browser lint pics demo clean

train: .venv/ready
	$(BIN)/python -m arcface_edu.train $(ARGS)

# Each process has one core and reads for itself: a reader beside it would only make it late.
train-ddp: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc_per_node=2 -m arcface_edu.train drawn_faces batch_size=32 num_workers=0 \
		output=runs/drawn_faces_ddp $(ARGS)

lab: .venv/ready
	$(BIN)/jupyter lab notebooks/01_resnet.ipynb

notebooks: .venv/ready
	$(BIN)/python notebooks/make_notebooks.py $(ARGS)

course-html: .venv/ready
	$(BIN)/python notebooks/make_notebooks.py --html build/course

test: .venv/ready lint
	$(BIN)/python -m pytest -m "not browser"

test-fast: .venv/ready lint
	$(BIN)/python -m pytest -m "not slow and not browser"

test-browser: .venv/ready
	$(BIN)/python -m pytest -m browser

lint: .venv/ready
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .

pics: .venv/ready
	@test -f runs/drawn_faces/model.pt || $(MAKE) train
	@test -f runs/softmax/model.pt || $(MAKE) train ARGS="loss=softmax output=runs/softmax"
	$(BIN)/python pics/make_pics.py

demo: .venv/ready
	@test -f runs/drawn_faces/model.pt || $(MAKE) train
	$(BIN)/python docs/demo/make_demo.py runs/drawn_faces

# The stamp is written last, so that an installation cut short is taken up again. Nothing to do while it is newer.
.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "make: $(PYTHON) cannot make virtual environments; on Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,export]"
	@touch $@

clean:
	rm -rf .venv
