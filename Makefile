# make install   the virtual environment .venv with rankdeck in it
# make demo      two nodes x two ranks on this machine
# make test      lint and every test; as root also on real hosts in network namespaces
# make lint      ruff, mypy, import contracts
# make bench     measurements
# make screenshots   the pictures of screenshots/, from real runs on this machine

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2

BIN := $(VENV)/bin
INPUTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := install
.PHONY: install demo test lint bench screenshots system

install: $(VENV)/.installed

demo: install
	$(BIN)/rankdeck demo

test: system lint
	$(BIN)/pytest --ignore=tests/cluster --ignore=tests/slurm --ignore=tests/bench -n $(WORKERS) --dist loadfile
	$(BIN)/pytest tests/slurm tests/cluster -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

screenshots: $(VENV)/.installed-test
	$(BIN)/python -m tests.screenshots

bench: $(VENV)/.installed-test
	$(BIN)/python -m tests.bench

system:
	@sh tests/install.sh

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "rankdeck needs Python 3.10 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv: install it (Debian, Ubuntu: apt install python3-venv) and run make again" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(INPUTS) $(VENV)/.created
	$(BIN)/python -m pip install -e '.[train]' -c constraints.txt
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install -e '.[train,test]' -c constraints.txt
	@touch $@
