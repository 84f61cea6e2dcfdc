# make demo   train a small model on handwritten digits
# make test   run the tests, examples, documentation and docstrings, but for what takes long
# make test-slow  run what takes long: real compilers, many processes, the demo and the benchmarks
# make processes  train on two, three and four processes, compare with one, and let each of them fail everywhere; some minutes
# make crash  kill training runs and saves for half an hour, and compare what is left; the last line sums up; SHARE=0.1: a tenth
# make test-oldest  run the tests, slow ones too, with the oldest torch that pyproject.toml allows, in an environment of its own
# make hosts  run the tests of oncue.hosts with other libraries' loops, the oldest and the newest of each, in environments of their own
# make trackers  run the tests of Tracker with the real W&B, MLflow and Trackio, in environments of their own
# make search  run the tests of OptunaPruning and RayTuneReport with the real Optuna and Ray Tune, in environments of their own
# make keras-oldest  run the tests of models of the real Keras with the oldest Keras that pyproject.toml allows, in an environment of its own
# make gpu    measure and test on a GPU, in eight minutes, and write benchmarks/gpu.md; skips itself where there is none
# make screenshots  look at reports, notebooks and terminals in headless Chromium and tmux: tests, and pictures in screenshots/
# make release  build the wheel and the sdist, check them, install each into a bare environment and run it there; they are in dist/
# make test-pythons  run the tests with each Python of PYTHONS that uv or the shell finds, in environments of their own; TESTS: only some
# make peers  run Keras's own tests, out of its wheel, against Keras and against oncue, and compare; half an hour
# make docs   build the site, with a page and a picture for each callback, into build/site
# make lint   check style and types
# make bench  time oncue beside hand-written loops and other trainers, which get environments of their own in .bench
# make clean  remove what these made
#
# PYTHON chooses the interpreter (3.11 or newer), VENV the place of the virtual environment, WORKERS the test processes.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
SHARE ?= 1
PYTHONS ?= 3.11 3.12 3.13 3.14
TESTS ?=
BIN := $(VENV)/bin
OLDEST := $(VENV)-oldest
HOSTS := accelerate ignite lightning poutyne skorch transformers
TRACKER_ENVS := .hosts/wandb-newest .hosts/mlflow-newest .hosts/trackio-newest
SEARCH_ENVS := .hosts/optuna-newest .hosts/ray-newest
HOST_ENVS := $(foreach host,$(HOSTS),.hosts/$(host)-oldest .hosts/$(host)-newest)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

# Test processes share the cores, and the demo is too small for two, so each gets one thread.
demo test test-slow test-oldest test-pythons hosts trackers search keras-oldest processes crash screenshots peers docs: export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow gpu test-oldest test-pythons hosts trackers search keras-oldest processes crash screenshots peers docs release lint \
  bench clean

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/demo.py

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

crash: $(VENV)/dev.stamp
	ONCUE_CRASH_SHARE=$(SHARE) $(BIN)/python -m pytest -q -n $(WORKERS) -rs -m crash tests/crash

gpu: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/gpu.py

processes: $(VENV)/dev.stamp
	SHARDED_KILLS=100 $(BIN)/python -m pytest -q -m processes tests/distribution

test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "slow and not crash"

test-oldest: $(OLDEST)/dev.stamp
	$(OLDEST)/bin/python -m pytest -q -n $(WORKERS) -m "not crash" --dist loadfile

# What was run stands at the end: a Python that isn't here is no failure.
test-pythons:
	run=; for version in $(PYTHONS); do \
	  python=$$(uv python find --no-python-downloads $$version 2>/dev/null || command -v python$$version) && \
	    $$python -c '' 2>/dev/null || { echo "Python $$version isn't here"; continue; }; \
	  $$python -m venv .pythons/$$version && \
	    .pythons/$$version/bin/python $(PIP_INSTALL) -c constraints.txt -e '.[test]' && \
	    .pythons/$$version/bin/python -m pytest -q -n $(WORKERS) --dist loadfile $(TESTS) || exit 1; \
	  run="$$run $$version"; done; echo "passed with Python:$$run"; test -n "$$run"

hosts: $(HOST_ENVS:=/dev.stamp)
	for environment in $(HOST_ENVS); do echo "$$environment"; library=$${environment#.hosts/}; PYTHONPATH=$(CURDIR)/src \
	  $$environment/bin/python -m pytest -q -m "not crash" -k "$${library%-*}" tests/hosts tests/test_docs.py || exit 1; done

trackers: $(TRACKER_ENVS:=/dev.stamp)
	for environment in $(TRACKER_ENVS); do echo "$$environment"; PYTHONPATH=$(CURDIR)/src \
	  $$environment/bin/python -m pytest -q tests/trackers || exit 1; done

search: $(SEARCH_ENVS:=/dev.stamp)
	for environment in $(SEARCH_ENVS); do echo "$$environment"; PYTHONPATH=$(CURDIR)/src \
	  $$environment/bin/python -m pytest -q tests/search || exit 1; done

keras-oldest: .hosts/keras-oldest/dev.stamp
	PYTHONPATH=$(CURDIR)/src .hosts/keras-oldest/bin/python -m pytest -q -n $(WORKERS) --dist loadfile \
	  tests/keras_models src/oncue/with_keras

# Chromium and tmux are packages of the system, such as Debian's.
screenshots: $(VENV)/screenshots.stamp
	@command -v chromium >/dev/null && command -v tmux >/dev/null || { \
	  echo "screenshots need chromium and tmux: apt-get install chromium tmux" >&2; exit 1; }
	mkdir -p screenshots
	ONCUE_SCREENSHOTS=$(CURDIR)/screenshots $(BIN)/python -m pytest -q -rs -m "slow or not slow" tests/report
	@ls screenshots

peers: $(VENV)/dev.stamp
	$(BIN)/python tests/peers/run.py --workers $(WORKERS)

# No network is needed when the environments are there. The site is static: python3 -m http.server -d build/site
docs: $(VENV)/dev.stamp .docs/dev.stamp
	$(BIN)/python docs/site/facts.py build/docs
	NO_MKDOCS_2_WARNING=1 .docs/bin/mkdocs build --strict

release: .release/tools/dev.stamp
	rm -rf dist
	.release/tools/bin/python -m build --outdir dist
	.release/tools/bin/python -m twine check --strict dist/*
	for file in dist/*.whl dist/*.tar.gz; do \
	  $(PYTHON) -m venv --clear .release/bare && .release/bare/bin/python $(PIP_INSTALL) -c constraints.txt $$file && \
	  .release/bare/bin/python -I tests/release.py "$$file" || exit 1; done
	@ls dist

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) $(OLDEST) .hosts .docs .bench .peers .pythons .release build dist screenshots .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[datasets,plot,report]'
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	touch $@

# The versions are those of the extra in pyproject.toml, as far as constraints.txt lets them.
.release/tools/dev.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .release/tools
	sed -n 's/^release = \[\(.*\)\].*/\1/p' pyproject.toml | tr -d '"' | tr ',' '\n' > .release/tools/requirements.txt
	.release/tools/bin/python $(PIP_INSTALL) -c constraints.txt -r .release/tools/requirements.txt
	touch $@

$(VENV)/screenshots.stamp: pyproject.toml constraints.txt $(VENV)/dev.stamp
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[screenshots]'
	touch $@

.docs/dev.stamp: pyproject.toml constraints.txt $(VENV)/dev.stamp
	$(BIN)/python -m venv --clear .docs
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' \
	  > .docs/requirements.txt
	.docs/bin/python $(PIP_INSTALL) -c constraints.txt -r .docs/requirements.txt
	touch $@

# Everything is as in the other environment but torch, whose version is the lower bound in pyproject.toml.
$(OLDEST)/dev.stamp: pyproject.toml constraints.txt | $(OLDEST)/bin/python
	grep -v '^torch==' constraints.txt > $(OLDEST)/constraints.txt
	sed -n 's/^ *"torch>=\([0-9.]*\)".*/torch==\1/p' pyproject.toml >> $(OLDEST)/constraints.txt
	grep '^torch==' $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python $(PIP_INSTALL) -c $(OLDEST)/constraints.txt -e '.[dev]'
	touch $@

# What .venv has, torch too, is seen from these environments, so that only the library comes to each; its versions are those of
# its extra in pyproject.toml: the lower bounds, or what is newest.
.hosts/%/dev.stamp: pyproject.toml constraints.txt $(VENV)/dev.stamp
	$(BIN)/python -m venv --clear .hosts/$*
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$(.hosts/$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/shared.pth"
	sed -n 's/^$(firstword $(subst -, ,$*)) = \[\(.*\)\]/\1/p' pyproject.toml | tr -d '"' | tr ',' '\n' \
	  | sed '$(if $(filter %-oldest,$*),s/>=/==/,)' > .hosts/$*/requirements.txt
	grep -E '^(numpy|torch)==' constraints.txt > .hosts/$*/constraints.txt
	.hosts/$*/bin/python $(PIP_INSTALL) -c .hosts/$*/constraints.txt -r .hosts/$*/requirements.txt
	touch $@

$(BIN)/python $(OLDEST)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "oncue needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	       "Name another: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(patsubst %/bin/python,%,$@)
