# `make` lists the commands. Each of them first sets up .venv, unless that was done.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test lint docs matrix clean

help:
	@echo 'make demo    train FCN and DNL on generated data, print the table, draw the picture'
	@echo 'make test    run the tests              (make test ARGS="-k attention")'
	@echo 'make lint    check style, formatting, types, docstrings and links'
	@echo 'make docs    build the documents in output/docs'
	@echo 'make matrix  run the tests of layers and engine on several Pythons and PyTorches (gigabytes)'
	@echo 'make clean   remove .venv and what tools cached; output/ and datasets/ stay'
	@echo
	@echo 'ARGS="..." is passed on (demo, test); PYTHON=python3.12 picks the Python of .venv.'

demo: $(READY)
	@$(BIN)/python tools/demo.py $(ARGS)

# Tests of one file share fixtures: a worker takes neighbours, and another's when it is done. It may
# need 7 GB.
WORKERS = $(shell $(BIN)/python -c 'import os; memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"); \
	print(max(1, min(8, os.cpu_count() or 1, int(memory / 7e9))))')
# glibc keeps what a test has freed for the next network. To return it and have it cleared anew, page
# by page, took a fifth of the time.
test: export MALLOC_MMAP_MAX_ = 0
test: export MALLOC_TRIM_THRESHOLD_ = 8000000000
test: $(READY)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python .ci/check_links.py

# Of a theme that warns of another program's future.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(READY)
	@$(BIN)/mkdocs build --quiet --strict $(ARGS)
	@echo 'output/docs/index.html'

matrix:
	@.ci/matrix $(ARGS)

clean:
	rm -rf $(VENV) .matrix build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache

# Not empty where .venv can be reused: its set-up was finished (READY exists), in this place (READY
# holds the path), by a Python that still runs and, where PYTHON was given, is the one asked for.
REUSE = $(shell [ "$$(cat $(READY) 2>/dev/null)" = "$(CURDIR)" ] && $(BIN)/python -c '' 2>/dev/null \
	$(if $(filter-out file,$(origin PYTHON)),&& [ "$$($(PYTHON) -V 2>&1)" = "$$($(BIN)/python -V)" ]) \
	&& echo yes)
ifeq ($(REUSE),)
.PHONY: $(READY)
endif

# Another PyTorch than the pinned one (.ci/matrix): TORCH=2.6.0 TORCHVISION=0.21.0. It may name the
# exact version of sympy itself.
OTHER_TORCH = $(if $(TORCH),s/^torch==[^ ]*/torch==$(TORCH)/; /^sympy==/d; \
	s/^torchvision==[^ ]*/torchvision==$(TORCHVISION)/)

define NEW_VENV
@$(PYTHON) -c '' 2>/dev/null || \
	{ echo 'set-up: "$(PYTHON)" does not run; $(NAME_ONE)' >&2; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	{ echo "set-up: $$($(PYTHON) -V 2>&1) will not do; $(NAME_ONE)" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo 'set-up: "$(PYTHON)" has no venv; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
@echo "set-up: new $(VENV) with $$($(PYTHON) -V)"
@rm -rf $(VENV)
@$(PYTHON) -m venv $(VENV)
endef
NAME_ONE := name a Python 3.10 to 3.13, as in: make test PYTHON=python3.11

$(READY): $(wildcard requirements/*.txt) setup.py pyproject.toml
	$(if $(REUSE),,$(NEW_VENV))
	@rm -f $(READY)
# Source packages are built with the pinned setuptools, not with whatever is newest.
	@$(PIP) install "$$(sed -n 's/^\(setuptools==[^ ]*\).*/\1/p' requirements/base.txt)"
	@echo 'set-up: PyTorch and the other requirements (minutes, the first time)'
	@sed '$(OTHER_TORCH)' requirements/base.txt > $(VENV)/requirements.txt
	@$(PIP) install --no-build-isolation --use-pep517 \
		-r $(VENV)/requirements.txt -r requirements/extras.txt -r requirements/test.txt
# What the tests compare with; without what it depends on but does not need (see the file).
	@$(PIP) install --no-deps -r requirements/parity.txt
	@echo 'set-up: Detectron2'
# Its compiled part was built for another PyTorch and loads on no Python; Detectron2 does without.
	@site="$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" && \
	$(PIP) install --no-deps --only-binary=:all: --python-version 3.10 --require-hashes \
		--upgrade --target "$$site" -r requirements/detectron2.txt && \
	rm -f "$$site"/detectron2/_C.*
	@echo 'set-up: dnl_d2'
	@$(PIP) install --no-deps --no-build-isolation -e .
	@echo "$(CURDIR)" > $(READY)
