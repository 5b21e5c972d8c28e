# What a person does with this repository. `make help` lists it.

VENV ?= .venv
WORKERS ?= 4
# Many tests wait for a clock or another process: more of them than there are cores.
JOBS ?= 5
# Which Python, of those that are new enough: the first on the path, if it says that it was built with profile-guided
# optimisation; else the distribution's, which is (though Debian's does not say so), if it can make virtual environments;
# else the first on the path all the same. Measured: minato takes 8 to 20 % less CPU time than on a Python built without.
NAMES := python3 python3.13 python3.12 python3.11
NEW := import sys; sys.version_info < (3, 11) and sys.exit(1);
OPTIMISED := import sys, sysconfig; \
	"--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "") or sys.exit(1);
# $(call first,PROGRAMS,TEST): the first of them that passes.
first = $(firstword $(foreach name,$(1),$(shell $(name) -c '$(2)' >/dev/null 2>&1 && echo $(name))))
on_path = $(call first,$(NAMES),$(NEW))
PYTHON ?= $(or $(call first,$(on_path),$(OPTIMISED)),\
	$(call first,$(NAMES:%=/usr/bin/%),$(NEW) import ensurepip, venv),\
	$(on_path))
# What the tests run: program:package.
TOOLS := wrk:wrk nginx:nginx curl:curl wget:wget ab:apache2-utils node:nodejs slowhttptest:slowhttptest
SECONDS ?= 60
MINUTES ?= 10
# What the comparison wants: program:package. Without wrk and nginx there is none, of the others it leaves out what is missing.
PEERS := wrk:wrk nginx:nginx haproxy:haproxy varnishd:varnish caddy:caddy
# For example: make bench ARGS='--quick --peers minato,nginx'
ARGS ?=
# Suites that start processes; they belong to `make test`.
PROCESS_SUITES := tests/system tests/wire tests/control tests/cli tests/conformance tests/real

# The public suite for HTTP caches, a package of npm; its server and its client need Node.
SUITE := tests/conformance
SUITE_STAMP := $(SUITE)/node_modules/.package-lock.json

# Suites that run once more without the express lane, so that both codecs are held to the same; but for those of
# processes, upstreams, names and configs, in which nothing depends on who reads the messages.
BOTH_WAYS := tests/wire tests/system
ONE_WAY := admin affinity balancing binary_upgrade config demo dropped_addresses harness health load logs names \
	orphans outliers processes queue reload succession supervision upgrade_seams upgrade_state

BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.minato-run
DEV_STAMP := $(VENV)/.minato-dev
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: help run test check fuzz chaos soak bench format tools suite peers clean distclean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 18

run: $(RUN_STAMP) ## install into .venv and start the demo on http://localhost:8080/ (WORKERS=4)
	@exec $(BIN)/python bin/minato demo --workers $(WORKERS)

test: $(DEV_STAMP) tools suite ## run every test suite (JOBS=5); installs what they need
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup tests
	MINATO_TEST_EXPRESS=false $(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup $(BOTH_WAYS) \
		$(ONE_WAY:%=--ignore=tests/system/test_%.py)

check: $(DEV_STAMP) ## format, lint, types, layers and the tests without processes; under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup -m 'not slow' $(PROCESS_SUITES:%=--ignore=%) tests

fuzz: $(DEV_STAMP) ## random messages through minato, read by llhttp and h11 as well (SECONDS=60, ARGS='--seed 1')
	$(BIN)/python -m tests.fuzzing --seconds $(SECONDS) $(ARGS)

chaos: SECONDS := 220
chaos: $(DEV_STAMP) peers ## verified load while all goes wrong (SECONDS=220, ARGS='--scenarios storm --target minato,nginx')
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(ARGS)

soak: $(DEV_STAMP) ## ten minutes of load, reloads and failing origins: memory, descriptors, threads flat? (MINUTES=10)
	$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES) $(ARGS)

bench: $(DEV_STAMP) peers ## compare with nginx, HAProxy, Varnish and Caddy (ARGS=--quick); installs what is missing
	$(BIN)/python benchmarks/compare.py $(ARGS)

format: $(DEV_STAMP) ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean: ## remove caches and build output
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment and the suite for caches, too
	rm -rf $(VENV) $(SUITE)/node_modules

# An editable install; run again only when what it depends on changes.
$(RUN_STAMP): pyproject.toml setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(DEV_STAMP): pyproject.toml setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(RUN_STAMP) $@

$(BIN)/python:
	@if [ -z '$(PYTHON)' ] || ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo 'minato needs Python 3.11 or newer; none was found. Name one with: make PYTHON=/path/to/python3' >&2; \
		exit 1; \
	fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo 'This Python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv' >&2; \
		exit 1; \
	fi
	$(PYTHON) -m venv --clear $(VENV)

# The tests drive wrk, ab, slowhttptest, curl, wget and Node against minato, and put it in front of nginx and Node.
tools:
	@missing=; packages=; \
	for tool in $(TOOLS); do \
		command -v $${tool%%:*} >/dev/null || { missing="$$missing $${tool%%:*}"; packages="$$packages $${tool##*:}"; }; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ]; then as_root=; else as_root='sudo -n'; fi; \
	echo "installing$$packages for the tests"; \
	if command -v apt-get >/dev/null && { [ -z "$$as_root" ] || $$as_root true 2>/dev/null; }; then \
		$$as_root apt-get update -qq; \
		$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$packages >/dev/null; \
	fi; \
	for tool in $$missing; do \
		command -v $$tool >/dev/null || { \
			echo "The tests cannot run without:$$missing. On Debian and Ubuntu: apt-get install$$packages" >&2; \
			exit 1; \
		}; \
	done

suite: $(SUITE_STAMP)

$(SUITE_STAMP): $(SUITE)/package.json $(SUITE)/package-lock.json
	@command -v npm >/dev/null || { \
		echo 'The public suite for HTTP caches needs Node and npm. On Debian and Ubuntu: apt-get install nodejs npm' >&2; \
		exit 1; \
	}
	cd $(SUITE) && npm ci --ignore-scripts --no-progress --loglevel=error
	@touch $@

# Packages of Debian and Ubuntu, each by itself: one that cannot be had must not keep the others away.
peers:
	@missing=; for peer in $(PEERS); do \
		command -v $${peer%%:*} >/dev/null || missing="$$missing $${peer##*:}"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ]; then as_root=; else as_root='sudo -n'; fi; \
	if ! command -v apt-get >/dev/null || { [ -n "$$as_root" ] && ! $$as_root true 2>/dev/null; }; then \
		echo "left out, since they cannot be installed here:$$missing"; \
		exit 0; \
	fi; \
	echo "installing$$missing for the comparison; their packages may start services of their own, which are left alone"; \
	$$as_root apt-get update -qq || true; \
	for package in $$missing; do \
		$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$package >/dev/null \
			|| echo "left out, since it cannot be installed: $$package"; \
	done
