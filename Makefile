# reslib, the replication book of the ResNet paper. `make` says what there is to do; each target does its own set-up.

SCALE ?= pocket
CHAPTER ?= 01_residual_learning
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# conda's environment where it is active, else .venv, which `make env` makes
BIN = $(if $(filter reslib,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX)/bin,.venv/bin)
ROOT_FLAG = $(if $(filter 0,$(shell id -u)),--allow-root)

export V
export OMP_WAIT_POLICY ?= PASSIVE  # as reslib sets it, also where torch is loaded first

help:  ## say this
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

env:  ## make .venv: pinned packages, FFCV, reslib itself (TORCH=cpu: PyTorch for the CPU only; PYTHON=python3.12: another Python)
	@[ $(BIN) != .venv/bin ] || $(or $(PYTHON),$(error reslib needs Python 3.11 or newer, and there is none here: name one with PYTHON=path)) .ci/env.py

book: env  ## run what has changed at demo scale and build the book: book/_build/html/index.html (V=1: all that the tools say)
	$(BIN)/python book/build.py

pdf: book  ## print the whole book with Chromium or Chrome: book/_build/html/reslib.pdf
	$(BIN)/python book/pdf.py

test: env  ## run the tests (those on real images where CIFAR-10 is found: RESLIB_DATA, or ./data)
	$(BIN)/python -m pytest -n 2 --dist worksteal

lab: env  ## open the chapters in JupyterLab, each .py and its .ipynb kept as one
	$(BIN)/jupyter lab $(ROOT_FLAG) --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks

bench: env  ## time the training step: images/s, eager and as reslib runs it
	$(BIN)/python -m reslib bench step

rerun: env  ## train a chapter's runs anew, finished ones kept (SCALE=demo, pocket, night or paper; CHAPTER=01_residual_learning)
	mkdir -p book/_build/rerun
	$(BIN)/papermill --log-output notebooks/$(CHAPTER).ipynb book/_build/rerun/$(CHAPTER).ipynb -p scale $(SCALE) -p retrain True

clean:  ## remove what was built, and caches; .venv, data and recorded runs stay
	rm -rf book/_build build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

.PHONY: help env book pdf test lab bench rerun clean
