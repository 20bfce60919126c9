# make demo   the whole job, here and now: on SCANS=folder, or on the Kaggle images, or on drawn ones
# make test   everything that CI checks of the program
# make bench  what Scanomaly costs beside what it has to cost: a table, and bench/results/*.json
# make formats  each kind of picture, and all cases of the grids, against independent readers
# make chaos  SEEDS=50: jobs while workers, Redis and the database are killed; prints a table
PYTHON ?= python3
SEEDS ?= 10
VENV := .venv
BIN := $(VENV)/bin
# The installer shows its progress on a terminal.
QUIET := $(shell test -t 2 || echo --quiet)
ifdef UV_TORCH_BACKEND
SAY_TORCH := echo "Installing into $(VENV): PyTorch for $(UV_TORCH_BACKEND), and what else a worker needs" >&2
else
SAY_TORCH := echo "Installing into $(VENV): about 5 GB are downloaded, most of it PyTorch's build for CUDA. \
UV_TORCH_BACKEND=cpu make $(firstword $(MAKECMDGOALS) demo) takes the small one, where this machine reaches PyTorch's own index." >&2
endif

.PHONY: demo test bench formats chaos lint install clean

demo: $(VENV)/worker
	$(BIN)/scanomaly demo $(if $(SCANS),"$(SCANS)")

install: $(VENV)/worker

test: $(VENV)/test
	$(BIN)/python -m pytest -n 4 --dist worksteal --durations=10

bench: $(VENV)/test
	$(BIN)/python -W ignore -m bench

formats: $(VENV)/test
	FORMATS=all $(BIN)/python -m pytest -q tests/formats

chaos: $(VENV)/test
	$(BIN)/python -m tests.chaos --seeds $(SEEDS) --store both --jobs 2

lint: $(VENV)/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info

# The standard venv and pip bootstrap uv, which installs the 5 GB of torch in a fraction of pip's time.
$(VENV)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit("Scanomaly needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv

$(VENV)/worker: $(VENV)/bin/uv pyproject.toml constraints.txt
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(SAY_TORCH)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install $(QUIET) -c constraints.txt -e '.[worker,offline,postgres,server,medical,s3,gs,http]'
	@touch $@

$(VENV)/test: $(VENV)/worker
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install $(QUIET) -c constraints.txt -e '.[worker,offline,postgres,server,medical,s3,gs,http,test]'
	@touch $@
