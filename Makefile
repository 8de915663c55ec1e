# `make demo` and `make test` do everything on a fresh machine with python3 of 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all check doll doll-seeds doll-page readme bench docs torture suites fuzz sbom clean

demo: $(VENV)/core
	$(BIN)/verydeep demo

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -p no:randomly --durations=10

# What a change is likely to break, in minutes.
test: check
	$(PYTEST) -m "not slow"

# Everything: also several processes, kills and other faults, fuzzing in short, the browser.
test-all: test
	$(PYTEST) -m slow

check: $(VENV)/dev
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy

# All rows of Tables 3 to 7 at doll size, into docs/doll.md: about an hour on two cores; interrupted, it goes on.
doll: $(VENV)/core
	$(BIN)/verydeep reproduce classification --doll
	mkdir -p docs/results && cp runs/doll/results.json docs/results/doll.json
	$(MAKE) doll-page

# The same with two more seeds, and the page with mean and spread.
doll-seeds: doll
	for seed in 1 2; do \
		$(BIN)/verydeep reproduce classification --doll --seed $$seed --out runs/doll-$$seed && \
		cp runs/doll-$$seed/results.json docs/results/doll-$$seed.json || exit 1; done
	$(MAKE) doll-page DOLLS="docs/results/doll.json docs/results/doll-1.json docs/results/doll-2.json"

DOLLS := docs/results/doll.json
doll-page: $(VENV)/core
	for table in claims doll 3 4 5 6 7 text; do \
		$(BIN)/verydeep table $$table --from $(DOLLS) --write docs/doll.md || exit 1; done

# The examples' results, into their pages in docs/ and the table of README: five demos, and real photos where CALTECH101
# and NET_D_CONV name them.
readme: $(VENV)/dev
	$(BIN)/python examples/demo_seeds.py run
	$(BIN)/python benchmarks/dense_against_crops.py run && $(BIN)/python benchmarks/dense_against_crops.py write
	if [ -n "$$CALTECH101" ] && [ -n "$$NET_D_CONV" ]; then \
		for page in caltech101 protocols transfer; do $(BIN)/python examples/$$page.py run || exit 1; done; fi
	for page in demo_seeds caltech101 protocols transfer summary; do \
		$(BIN)/python examples/$$page.py write || exit 1; done

# Speed beside peers, growth, costs, into docs/scale.md and docs/serving.md: an hour of a machine that does nothing else.
bench: $(VENV)/dev
	$(PIP) --editable '.[rivals]'
	for page in cpu_speed exported scale growth serving; do \
		$(BIN)/python benchmarks/$$page.py run && $(BIN)/python benchmarks/$$page.py write || exit 1; done

# These pages as a site, in docs/build; a warning is an error.
docs: $(VENV)/dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d docs/build/trees docs docs/build/html
	@echo docs/build/html/index.html

# Faults put into real commands, at length, into docs/reliability.md: two hours; interrupted, it goes on with the next row.
# NET_E may name a run of net E, which is served then.
torture: $(VENV)/dev
	PYTHONPATH=tests:tests/deploy:tests/fuzz OMP_NUM_THREADS=1 $(BIN)/python tests/fault_injection/run.py

# Tests, scanners and files of others, into docs/reliability.md: two hours. SUITES names a folder with clones of the
# repositories in tests/external/photos.py, ilsvrc_val.py and model_files.py, as OWNER/NAME; without it there are no photos.
suites: $(VENV)/dev $(VENV)/tools/bin/python
	$(PIP) --editable '.[suites,rivals]'
	npm install --silent --no-audit --no-fund --prefix $(VENV)/npm axe-core vnu-jar onnxruntime-web
	$(EXTERNAL)/metrics.py
	$(PYTEST) tests/external/test_hugging_face_peer.py
	$(EXTERNAL)/mutation.py
	$(EXTERNAL)/conditions.py
	$(MAKE) fuzz
	$(EXTERNAL)/exports.py
	$(EXTERNAL)/http_server.py
	$(EXTERNAL)/pages.py
	$(EXTERNAL)/model_files.py $(VENV)/tools/bin/python $(SUITES)
	if [ -n "$(SUITES)" ]; then $(EXTERNAL)/photos.py $(SUITES) && $(EXTERNAL)/ilsvrc_val.py $(SUITES) && \
		$(EXTERNAL)/advisories.py $(SUITES)/pypa/advisory-database; fi

# Coverage-guided fuzzing, FUZZ_SECONDS for each parser, added to what earlier runs did, into docs/reliability.md: by
# default ten minutes in all. A run begins with the inputs that the last one kept.
fuzz: $(VENV)/dev
	$(PIP) --editable '.[suites]'
	$(EXTERNAL)/guided_fuzzing.py --seconds $(or $(FUZZ_SECONDS),10) --corpus $(VENV)/fuzz

EXTERNAL := PYTHONPATH=tests:tests/deploy:tests/fuzz:tests/checkpoints:tests/fault_injection OMP_NUM_THREADS=1 $(BIN)/python tests/external

# What the package and all its extras depend on, as CycloneDX, and the advisories on them.
sbom: $(VENV)/dev $(VENV)/tools/bin/python
	$(VENV)/tools/bin/cyclonedx-py environment --pyproject pyproject.toml \
		--output-file sbom.cdx.json $(BIN)/python
	$(VENV)/tools/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

$(VENV)/tools/bin/python: tests/external/tools.txt
	$(PYTHON) -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/external/tools.txt
	touch $@

$(VENV)/core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "verydeep needs Python 3.11 or later: make PYTHON=python3.12 …" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/dev: $(VENV)/core
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis docs/build
