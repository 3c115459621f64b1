# `make` alone lists what there is. Everything runs in .venv, which `make` creates and keeps whole.

PYTHON ?= python3
JOBS ?= 2
export PYTHON TORCH_INDEX

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
STEP := .ci/step

# Several processes run side by side: one thread in each, or they wait for one another.
ONE_THREAD := env OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# The notebooks' kernel is the environment's own, whatever kernels the user has installed.
OWN_KERNEL := env JUPYTER_PREFER_ENV_PATH=1

.DEFAULT_GOAL := help
.PHONY: help install book serve test lint format bench table new-loss clean

help:  ## say what there is
	@echo "Usage: make TARGET    (needs Python 3.11 or newer; everything else goes into $(VENV))"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: PYTHON=$(PYTHON)  JOBS=$(JOBS)  TORCH_INDEX=(where to get another build of torch)"

install: $(INSTALLED)  ## create the virtual environment, or bring it up to date

$(INSTALLED): requirements.txt pyproject.toml seglosses_nb/_version.py .ci/install
	@.ci/install

book: $(INSTALLED)  ## run all chapters, build the site and say where it is
	@$(OWN_KERNEL) $(PY) -m seglosses_nb build --jobs $(JOBS)

serve: $(INSTALLED)  ## show the built site in the browser
	@$(PY) -m seglosses_nb serve

test: $(INSTALLED)  ## style, site, every chapter, every test: what CI runs
	@$(STEP) "System packages" $(PY) tests/system_needs.py --install
	@$(STEP) "Style" $(MAKE) --no-print-directory lint
	@$(STEP) "Site: papermill runs what changed" $(OWN_KERNEL) \
		$(PY) -m seglosses_nb build --jobs $(JOBS) --max-minutes 10
	@$(STEP) "Chapters: nbmake runs them all" $(OWN_KERNEL) $(ONE_THREAD) \
		$(PY) -m pytest --nbmake --nbmake-kernel=python3 -n $(JOBS) book
	@$(STEP) "Tests" $(OWN_KERNEL) $(ONE_THREAD) \
		$(PY) -m pytest -n $(JOBS) --dist loadgroup

lint: $(INSTALLED)  ## check style, spelling and the generated tables; change nothing
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m codespell_lib
	@$(PY) -m seglosses_nb.lab.tables --check

format: $(INSTALLED)  ## put everything into shape, notebooks too
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .
	@find book -name '*.ipynb' -not -path '*/.ipynb_checkpoints/*' \
		-exec $(PY) -m nbstripout --keep-id {} +

bench: $(INSTALLED)  ## measure the speed of every loss against torch, MONAI and kornia
	@$(PY) -m seglosses_nb bench

table: $(INSTALLED)  ## write the generated tables anew from the registry
	@$(PY) -m seglosses_nb.lab.tables --write

new-loss: $(INSTALLED)  ## start a loss: make new-loss NAME=tversky_loss FAMILY=region
	@$(PY) -m seglosses_nb new-loss "$(NAME)" "$(FAMILY)"

clean:  ## remove what was built (the environment stays: rm -r .venv)
	rm -rf _build dist build .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -print0 | xargs -0 rm -rf
