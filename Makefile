# Each target does its own set-up in $(VENV) and leaves a stamp there, so that the second run starts at once.
#
#   make demo    bring the ROS graph up, send eight goals, write out/demo/
#   make test    the whole test suite
#   make quick   the tests without ROS nodes, training and whole episodes
#   make lint    ruff and mypy
#   make docs    the documentation site, in site/
#   make picture the README's picture of the page (needs Chromium)
#   make clean   remove the virtual environment and everything built

PYTHON ?= python3
VENV ?= .venv
# What pip is asked for to get PyTorch. A CPU build is enough; override it to take another version or index:
#   make demo TORCH="torch --index-url ..."
TORCH ?= torch==2.13.0
DEMO_ARGS ?=
PYTEST_ARGS ?=
WORKERS ?= 2
# Tests run beside each other. Those of the live graph come last and by themselves: they need the processors in time, and
# the kernels are compiled by then. Those that share a graph stay together. A browser that draws by software takes all
# that there is, so those of the page come alone.
BESIDE = --numprocesses $(WORKERS) --dist loadscope
# Folders of which every test is left out are not even looked into: that takes seconds.
QUICK = $(addprefix --ignore=test/,commands evaluation examples experiments nodes training) \
	-m "not graph and not training and not study and not cold and not episodes"
BESIDE_GRAPHS = --numprocesses $(WORKERS) --dist loadgroup

# With a ROS 2 installation in reach its rclpy is used; without one, pip brings rclpy as wheels.
SYSTEM_ROS := $(shell $(PYTHON) -c 'import rclpy' 2>/dev/null && echo yes)
VENV_FLAGS := $(if $(SYSTEM_ROS),--system-site-packages)
comma := ,
ROS_EXTRA := $(if $(SYSTEM_ROS),,ros$(comma))
RUN := $(VENV)/bin/python -m
PIP := $(RUN) pip install --quiet --disable-pip-version-check

.PHONY: help demo test quick lint docs picture clean
help:
	@sed -n '/^#   make/s/^#   //p' Makefile

demo: $(VENV)/.ready
	$(VENV)/bin/spiking_controller demo $(DEMO_ARGS)
	@echo "To see the demo live, in a browser: make demo DEMO_ARGS=--view"

test: $(VENV)/.ready-dev
ifeq ($(strip $(PYTEST_ARGS)),)
	$(RUN) pytest $(BESIDE) -m "not graph"
	$(RUN) pytest $(BESIDE_GRAPHS) -m "graph and not browser"
	$(RUN) pytest -m browser
else
	$(RUN) pytest $(PYTEST_ARGS)
endif

quick: $(VENV)/.ready-dev
	$(RUN) pytest $(BESIDE) $(QUICK) $(PYTEST_ARGS)

docs: $(VENV)/.ready-docs
	$(RUN) mkdocs build --strict

picture: $(VENV)/.ready-dev
	$(VENV)/bin/python docs/page_picture.py

lint: $(VENV)/.ready-dev
	$(RUN) ruff check .
	$(RUN) mypy

$(VENV)/.ready: setup.py setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Setting up $(VENV) (some minutes the first time)"
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	$(PIP) $(TORCH)
	$(PIP) --editable '.[$(ROS_EXTRA)viz,view]'
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) --editable '.[$(ROS_EXTRA)dev]'
	@touch $@

$(VENV)/.ready-docs: $(VENV)/.ready
	$(PIP) --editable '.[$(ROS_EXTRA)docs]'
	@touch $@

clean:
	rm -rf $(VENV) build install log out site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
