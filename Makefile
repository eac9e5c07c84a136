# `make look` and `make mini` run the study in miniature, `make test` the tests. The first call sets
# everything up.
HERE := $(patsubst %/,%,$(dir $(realpath $(lastword $(MAKEFILE_LIST)))))

ifneq ($(realpath $(CURDIR)),$(HERE))
# Called from another folder (make -f): everything is done in the Makefile's own.
.DEFAULT_GOAL := help
%:
	@$(MAKE) --no-print-directory -C $(HERE) $@
$(MAKEFILE_LIST): ;
else

PYTHON ?= python3
SEEDS ?=
OVERLAY ?=
BIN := .venv/bin

# Importing torch and transformers without compiled bytecode takes four times as long.
unexport PYTHONDONTWRITEBYTECODE

comma := ,
space := $(subst ,, )
seeds = $(if $(SEEDS),--config seeds=$(subst $(space),$(comma),$(strip $(SEEDS))))
mini = config.yaml profiles/mini/study.yaml
overlay = $(if $(OVERLAY),--configfile $(mini) $(OVERLAY))

# Packages that only the benchmarks need are installed beside the locked environment.
BENCH_PACKAGES ?= .venv/bench
QUICK ?=
bench = PYTHONPATH=$(BENCH_PACKAGES) $(BIN)/python benchmarks

.PHONY: help look mini test fuzz faults outage bench error-rates first-study docs lint format lock latex slurm clean

help:
	@echo "make look           a first look: the paper's tables in miniature, one seed, to results/mini/"
	@echo "make mini           all of it: three seeds, and the controls"
	@echo "make mini SEEDS=0   the same with one seed"
	@echo "make test           the tests"
	@echo "make fuzz           thousands of mutated configurations and data files"
	@echo "make faults         more than a thousand injected faults, to docs/reliability.md"
	@echo "make outage         ten minutes without Slurm's controller, with and without accounting"
	@echo "make bench          the benchmarks, to docs/benchmarks.md (make bench QUICK=1: whether they work)"
	@echo "make error-rates    how often the statistical tests err, to docs/statistics.md"
	@echo "make first-study    the results that docs/first-study.md shows"
	@echo "make docs           the generated parts of the documentation"
	@echo "make lint           ruff, snakefmt and snakemake --lint"
	@echo "make lock           resolve requirements.in anew"

look: .venv/ready
	$(BIN)/snakemake --profile profiles/mini --configfile $(mini) profiles/mini/look.yaml $(OVERLAY) $(seeds)

mini: .venv/ready
	$(BIN)/snakemake --profile profiles/mini $(overlay) $(seeds)

test: .venv/ready latex slurm
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slurm"
	$(BIN)/python -m pytest -m slurm

# Cases are made from their numbers, so that equal code gives equal cases.
fuzz: .venv/ready
	$(BIN)/python -m pytest -n 2 $(wildcard tests/fuzz_*.py)

# Faults are drawn from a seed. It fails where one of them did not end as promised, and writes the counts
# all the same.
faults: .venv/ready
	$(BIN)/python -m tests.faults --out docs/reliability.json; ended=$$?; $(BIN)/python docs/generate; exit $$ended

outage: .venv/ready slurm
	MOFE_SLURM_AWAY=600 $(BIN)/python -m pytest -m slurm -k controller_that_is_away

# Run it on an idle machine, because it compares times. Real rows are read from MOFE_SHARED.
bench: $(BENCH_PACKAGES)/ready
	$(bench)/training.py $(if $(QUICK),--quick)
	$(bench)/evaluation.py $(if $(QUICK),--quick)
	$(bench)/decoding.py $(if $(QUICK),--quick)
	$(bench)/merge.py $(if $(QUICK),--quick)
ifndef QUICK
	$(bench)/study.py --out benchmarks/results/look.json --profile profiles/mini --configfile $(mini) profiles/mini/look.yaml
	$(bench)/study.py --out benchmarks/results/mini.json --profile profiles/mini
	$(bench)/page.py
endif

$(BENCH_PACKAGES)/ready: benchmarks/requirements.txt .venv/ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(BENCH_PACKAGES) --no-deps -r benchmarks/requirements.txt
	touch $@

# The studies are drawn from fixed seeds, so that equal code gives equal rates.
error-rates: .venv/ready
	PYTHONPATH=. $(BIN)/python tests/simulate.py
	$(BIN)/python docs/generate

# What docs/first-study.md shows: its study, run once more.
first-study: .venv/ready
	$(BIN)/python docs/generate/first_study.py
	$(BIN)/python docs/generate

# Tables of keys and records, and the schemas, from the descriptions in the code.
docs: .venv/ready
	$(BIN)/python docs/generate

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: .venv/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile rules

# uv checks the pinned packages by hash, installs them in parallel and compiles their bytecode.
.venv/ready: requirements.lock envs/installer.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/installer.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r requirements.lock
	touch $@

# One test compiles the tables with pdflatex. Without it, and without the right to install it, that
# test is skipped and says so.
latex:
	@command -v pdflatex >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -qy --no-install-recommends texlive-latex-base texlive-latex-recommended; \
	  else \
	    echo "pdflatex is missing, so the tables are not compiled in the tests: install texlive-latex-recommended"; \
	  fi; }

# The workflow is tested on a Slurm of its own, which root can start. Elsewhere those tests are skipped.
slurm:
	@command -v slurmctld >/dev/null && command -v slurmdbd >/dev/null && command -v mariadbd >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -qy --no-install-recommends slurm-wlm slurmdbd mariadb-server-core mariadb-client-core; \
	  else \
	    echo "Slurm is missing, so profiles/slurm is not tested: install slurm-wlm slurmdbd mariadb-server-core mariadb-client-core"; \
	  fi; }

lock: .venv/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade requirements.in -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade envs/installer.in -o envs/installer.lock

clean:
	rm -rf results .snakemake

endif
