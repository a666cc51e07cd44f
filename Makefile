# Set-up, tests and the comparison itself. `make` alone lists what there is and installs nothing.

# The interpreter that makes .venv, and what is handed on to compare.py or pytest.
PYTHON ?= python3
ARGS ?=
# Test processes; two keep memory modest, since some load both frameworks.
JOBS ?= 2

VENV := .venv
RUN := $(VENV)/bin/python
REQUIREMENTS := requirements.txt common/requirements.txt torch_impl/requirements.txt keras_impl/requirements.txt
TEST_REQUIREMENTS := $(REQUIREMENTS) common/requirements-ray.txt tests/requirements.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help compare parity bench test install install-tests lint unit format clean

help: ## list the targets
	@echo "make TARGET [ARGS='...'] [PYTHON=/path/to/python3]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile
	@echo "pip's own settings apply: PIP_INDEX_URL, PIP_FIND_LINKS, ... For PyTorch without CUDA (much smaller):"
	@echo "  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make install"

compare: install ## install what is missing and run `python compare.py ARGS`
	@$(RUN) compare.py $(ARGS)

parity: install ## install what is missing and run `python compare.py parity ARGS`: the proof, minutes to an hour
	@$(RUN) compare.py parity $(ARGS)

bench: install ## install what can be had of the peers and run `python -m benchmarks ARGS`: speed beside them, an hour
	$(call install_peers)
	@$(RUN) -m benchmarks $(ARGS)

test: lint unit ## install what is missing, lint, and run `pytest ARGS`

install: ## make .venv and install both stacks; does nothing where that is done
	$(call set_up,both,$(REQUIREMENTS),-r requirements.txt)

install-tests: install ## install also what the tests and linters need
	$(call set_up,tests,$(TEST_REQUIREMENTS),-r requirements.txt -r tests/requirements.txt)

lint: install-tests ## ruff and mypy, changing nothing
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

unit: install-tests ## pytest alone
	$(RUN) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

format: install-tests ## let ruff rewrite what it can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean: ## remove .venv and all caches; results/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The peers of the benchmarks, one by one and without what they need: they must not change a package of .venv. One that
# cannot be had is left out, said so in the table, and tried again the next time.
PEERS := $(VENV)/bench-peers
define install_peers
@if ! cmp -s benchmarks/requirements.txt $(PEERS)/installed; then \
	echo "Installing benchmarks/requirements.txt into $(PEERS)"; rm -rf $(PEERS); mkdir -p $(PEERS); all=yes; \
	for peer in $$(sed 's/ *#.*//' benchmarks/requirements.txt); do \
		PIP_DISABLE_PIP_VERSION_CHECK=1 $(RUN) -m pip install --quiet --no-deps --target $(PEERS) "$$peer" \
			|| { all=; echo "$$peer cannot be installed here; it is left out"; }; \
	done; \
	[ -z "$$all" ] || cp benchmarks/requirements.txt $(PEERS)/installed; \
fi
endef

# TensorFlow 2.21 has wheels for Python 3.11 to 3.13; NumPy 2.4 needs 3.11.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

# $(call set_up,NAME,FILES,PIP ARGUMENTS): .venv as FILES ask for it.
#
# .venv/installed-NAME is a copy of FILES as last installed, so any change of theirs, and nothing else, installs again.
# .venv/unfinished stands while .venv changes. Found at the start, it tells of a killed install, and .venv is made
# anew: pip takes a package that was half unpacked for an installed one. Where pip itself gives up, .venv is as it was.
define set_up
@set -e; trap 'exit 130' HUP INT TERM; \
fail() { echo "make: $$*" >&2; exit 1; }; \
if [ -e $(VENV)/unfinished ] || ! $(RUN) -c '$(SUPPORTED)' 2>/dev/null || ! $(RUN) -m pip --version >/dev/null 2>&1; then \
	command -v "$(PYTHON)" >/dev/null || fail "'$(PYTHON)' is no command; name a Python 3.11, 3.12 or 3.13 with PYTHON=/path/to/python3"; \
	"$(PYTHON)" -c '$(SUPPORTED)' || fail "'$(PYTHON)' is $$("$(PYTHON)" --version 2>&1), but 3.11, 3.12 or 3.13 is needed; name one with PYTHON=/path/to/python3"; \
	"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || fail "'$(PYTHON)' cannot make a virtual environment; install its venv module (Debian, Ubuntu: apt install python3-venv) or name another Python with PYTHON=/path/to/python3"; \
	[ ! -e $(VENV) ] || echo "$(VENV) is incomplete or of another Python; it is made anew"; \
	echo "Making $(VENV) with $$("$(PYTHON)" --version)"; \
	rm -rf $(VENV); mkdir $(VENV); : > $(VENV)/unfinished; \
	"$(PYTHON)" -m venv $(VENV); \
	rm $(VENV)/unfinished; \
fi; \
if ! cat $(2) | cmp -s - $(VENV)/installed-$(1); then \
	echo "Installing $(3) into $(VENV) (minutes, the first time)"; \
	cat $(2) > $(VENV)/unfinished; \
	quiet=--quiet; [ ! -t 1 ] || quiet=; \
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(RUN) -m pip install $$quiet $(3) || { rm $(VENV)/unfinished; fail "pip could not install $(3); its reason stands above"; }; \
	mv $(VENV)/unfinished $(VENV)/installed-$(1); \
fi
endef
