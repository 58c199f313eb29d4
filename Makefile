# make demo | test | check | clean. Each needs python3 (3.11 or 3.12) and make, and sets up .venv by itself, once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# --no-compile: bytecode of what is never imported is a sixth of the disk space.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-compile -c constraints.txt
INPUTS := setup.cfg pyproject.toml constraints.txt
# Where `make demo` puts its film and picture.
OUT    ?= outputs/demo
CHECK_PYTHON = import sys; v = sys.version_info; raise SystemExit(0 if (3, 11) <= v[:2] <= (3, 12) else "Python 3.11 or 3.12 is needed, and this is %d.%d: make PYTHON=python3.11 ..." % v[:2])

# Busy-waiting threads lose to any other process on a small machine; and there is no window or sound anywhere here.
export OMP_WAIT_POLICY ?= passive
export SDL_VIDEODRIVER ?= dummy
export SDL_AUDIODRIVER ?= dummy

.PHONY: help demo test test-long test-numpy2 check docs clean no-torchvision

help:
	@echo "make demo   run the shipped policy, write a video and a picture of what it saw and imagined, to OUT=outputs/demo"
	@echo "make test   the tests"
	@echo "make test-long  those that take minutes each"
	@echo "make test-numpy2  robosuite's environments with numpy 2, in an environment of its own"
	@echo "make check  ruff, mypy and which layer may import which"
	@echo "make docs   the documentation, into docs/_build/html"
	@echo "make clean  remove .venv and caches"

demo: $(VENV)/.core no-torchvision
	$(BIN)/uva demo --out $(OUT)

# Two processes of one thread each: most tests are one thread of Python. A file stays in one process.
test: $(VENV)/.dev no-torchvision
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# What takes minutes each: every LIBERO-10 task, many resets of the robosuite environments, 10,000 hostile sequences of
# actions, reinforcement learning in a dream, trainings that are interrupted at every other step.
test-long: $(VENV)/.dev no-torchvision
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m long

# robosuite's environments on numpy 2, with the mink that takes it: in .venv-numpy2, as pip would not install the two together.
test-numpy2:
	$(MAKE) VENV=.venv-numpy2 .venv-numpy2/.numpy2
	OMP_NUM_THREADS=1 .venv-numpy2/bin/python -m pytest -p no:cacheprovider $(NUMPY2_TESTS)

NUMPY2_TESTS := $(addprefix tests/test_,tool_hang_env.py libero_env.py libero_actions.py evaluate.py agents.py data.py readers.py model.py)

$(VENV)/.numpy2: $(VENV)/.dev
	$(BIN)/python -m pip --disable-pip-version-check --quiet install --no-compile --no-deps numpy==2.4.6 mink==0.0.13
	touch $@

check: $(VENV)/.dev no-torchvision
	$(BIN)/ruff check .
	$(BIN)/mypy -p uva_agents -p tests
	$(BIN)/lint-imports --no-cache

# Warnings are errors: a page that links nowhere is not published.
docs: $(VENV)/.docs no-torchvision
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

no-torchvision: | $(VENV)/.core
	@$(BIN)/python -c "import importlib.util as u; raise SystemExit('torchvision is installed in $(VENV) and may break torch: $(BIN)/pip uninstall torchvision' if u.find_spec('torchvision') else 0)"

$(BIN)/python:
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	$(PYTHON) -m venv $(VENV)

# torch first and alone: the rest then fits itself to it.
$(VENV)/.core: $(INPUTS) | $(BIN)/python
	@$(BIN)/python -c '$(CHECK_PYTHON)'
	$(INSTALL) torch==2.13.0
	$(INSTALL) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(INSTALL) -e '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.core
	$(INSTALL) -e '.[docs,sim,serve,sb3]'
	touch $@

clean:
	rm -rf docs/_build $(VENV) .venv-numpy2 .pytest_cache .mypy_cache .ruff_cache *.egg-info
