# Thin verbs. Each does its own set-up in .venv and is quick the second time.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check -q

SOURCES := setup.py setup.cfg pyproject.toml cext/build.py \
           $(shell find cext/include cext/src cext/python -name '*.[ch]') \
           cext/quiche/Cargo.toml cext/quiche/Cargo.lock cext/quiche/src/lib.rs \
           $(wildcard cext/quiche/patches/*.patch)

.PHONY: build demo test soak bench lint fuzz clean

build: $(VENV)/.built

demo: build $(VENV)/.dev
	$(PY) examples/demo.py

test: build $(VENV)/.dev lint
	$(PY) -m pytest $(if $(TESTS),$(TESTS),-n 3 --dist loadscope)

# What takes minutes to be believed; prints what it saw. ONLY=reload: those with that in their names.
soak: build $(VENV)/.dev
	$(PY) -m pytest tests/soak -v $(if $(ONLY),-k "$(ONLY)")

bench: build $(VENV)/.dev
	$(PY) loadtests/bench.py $(if $(ONLY),--only $(ONLY))

lint: build $(VENV)/.dev
	$(PY) tests/lint.py

fuzz: build
	$(PY) tests/fuzz/run.py $(if $(SECONDS_EACH),--seconds $(SECONDS_EACH))

clean:
	rm -rf $(VENV) build *.egg-info quicgreen/_core*.so quicgreen/_core.c

$(PY):
	$(PYTHON) -c 'import sys; sys.exit("quicgreen: needs Python 3.10 or later" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)

# What the build needs, installed where it stays: an isolated build would use new paths each time.
$(VENV)/.tools: pyproject.toml | $(PY)
	$(PIP) install "setuptools>=77" wheel "cffi>=1.17" "cmake>=3.22" "libclang>=16"
	touch $@

$(VENV)/.built: $(SOURCES) $(VENV)/.tools
	PATH="$(abspath $(VENV))/bin:$$PATH" $(PIP) install --no-build-isolation -e .
	touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.built
	PATH="$(abspath $(VENV))/bin:$$PATH" $(PIP) install --no-build-isolation -e ".[dev]"
	touch $@
