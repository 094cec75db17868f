# Needs make and Python 3.11 or newer; everything else is installed into .venv, which belongs to this project alone.
#
#   make demo      film a small archive, ingest it, index it, search it, report on it
#   make test      format check, lint, types, tests
#   make test-long the tests that take minutes each: whole lines killed at random, several nodes, training on several workers
#   make lint      the same without the tests
#   make install   only the set-up

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo-output
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo lint test test-long clean-demo

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "psreid needs Python 3.11 or newer, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# The line of commands that an archive goes through. Each continues where it was stopped, so a broken demo is run again.
# The persons come from a detections file, as they would from one's own detector; without it, ingest searches by itself.
demo: $(STAMP)
	$(BIN)/psreid synth $(DEMO)/archive --seed 7 --identities 16 --cameras 4 --frames 640 --preview $(DEMO)/archive.png
	$(BIN)/psreid ingest $(DEMO)/archive/videos $(DEMO)/frames \
		--detections $(DEMO)/archive/detections --min-score 0.3 --min-height 40 --min-width 12
	$(BIN)/psreid index $(DEMO)/frames $(DEMO)/index
	$(BIN)/psreid search $(DEMO)/index $(DEMO)/archive/tables/queries $(DEMO)/matches --no-report
	$(BIN)/psreid report $(DEMO)/matches $(DEMO)/report
	@echo
	@echo "Open $(DEMO)/report/report.html in a browser: where and when the queried persons appear."

clean-demo:
	rm -rf $(DEMO)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -m 'not long'

test-long: $(STAMP)
	$(BIN)/pytest -m long
