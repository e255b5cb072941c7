PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help install demo demo-image submission test lint

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

# Installed once, and again when the requirements change.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $$($(PYTHON) --version), expected Python 3.11 or newer; try make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $@

install: $(VENV)/.installed  ## .venv with everything in it

demo: install  ## from nothing to a scored submission, on two CPU cores
	PATH="$(abspath $(BIN)):$$PATH" bash scripts/demo.sh

demo-image: install  ## the same on images: tags of emoji
	PATH="$(abspath $(BIN)):$$PATH" bash scripts/demo_image.sh

submission: install  ## CONFIG=… TEST=… SAMPLE=… [SET='name=mine …']: what is missing, from folds to a CSV
	@test -n "$(CONFIG)" -a -n "$(TEST)" -a -n "$(SAMPLE)" \
	  || { echo "error: expected make submission CONFIG=… TEST=… SAMPLE=…" >&2; exit 2; }
	PATH="$(abspath $(BIN)):$$PATH" python scripts/submission.py --config "$(CONFIG)" \
	  --test "$(TEST)" --sample "$(SAMPLE)" $(SET)

# A file stays in one process, for what its tests share.
test: install  ## the test suite, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: install  ## ruff, as the CI runs it
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
