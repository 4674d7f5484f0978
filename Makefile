# Every target installs the pins of constraints.txt into a virtual environment first; a second call reuses it.
VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.version_info[:2] in ((3, 11), (3, 12)) or sys.exit(1); print(sys.executable)' 2>/dev/null && break; done)
ARGS ?=
INSTALL = $(VENV)/bin/pip install --quiet --disable-pip-version-check --no-compile

.PHONY: demo test lint format lock clean venv system-packages

demo: venv  ## every stage on this machine: ARGS="--out demo --seed 0"
	$(VENV)/bin/xdub demo $(ARGS)

# Two processes. The tests of a file stay together because they share what the file has started; tests/conftest.py
# orders the files.
test: venv  ## all tests: ARGS="tests/config -k strict"
	$(VENV)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: venv  ## style, format, types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ty check --python $(VENV)

format: venv
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

lock: venv  ## write constraints.txt from the environment after changing it
	$(VENV)/bin/python scripts/lock.py > constraints.txt.new && mv constraints.txt.new constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

venv: system-packages $(VENV)/.ready

system-packages:
	@scripts/system-packages

# torch comes first, with its own requirements, because these differ by machine (CUDA libraries or none). The rest is
# installed exactly as pinned, without requirements of packages that xdub does not use (see setup.py on mediapipe).
$(VENV)/.ready: constraints.txt setup.py pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: install it, or name it with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing into $(VENV): 160 packages, a few minutes"
	@test -x $(VENV)/bin/pip || "$(PYTHON)" -m venv $(VENV)
	@$(INSTALL) -c constraints.txt torch setuptools
	@$(INSTALL) --no-deps --no-build-isolation --use-pep517 -r constraints.txt
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@# pip would compile on one core. Errors are ignored: some packages ship templates that are not Python.
	@$(VENV)/bin/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@
