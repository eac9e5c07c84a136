# `make look` and `make mini` run the study in miniature, `make test` the tests. The first call sets
# everything up (docs/installing.md).
#
# Called from another folder (make -f .../Makefile mini), it works here; paths are of that folder.
ifneq ($(findstring /,$(MAKEFILE_LIST)),)
absolute = $(foreach path,$(1),$(if $(wildcard $(path)),$(abspath $(path)),$(path)))
from_here = $(if $(1),$(if $(filter /% ~%,$(firstword $(1))),,$(CURDIR)/)$(1))# its name may have spaces
goals := $(or $(MAKECMDGOALS),help)
.PHONY: $(goals)
$(firstword $(goals)):
	@$(MAKE) --no-print-directory -C "$$(dirname "$(strip $(MAKEFILE_LIST))")" $(goals) \
	  $(if $(OVERLAY),OVERLAY="$(call absolute,$(OVERLAY))") \
	  $(if $(filter command,$(origin VENV)),VENV="$(call from_here,$(VENV))") \
	  $(if $(WHEELHOUSE),WHEELHOUSE="$(call from_here,$(WHEELHOUSE))")
$(wordlist 2,$(words $(goals)),$(goals)): $(firstword $(goals)) ; @:
else

PYTHON ?= python3
SEEDS ?=
OVERLAY ?=

# CUDA=12 is the environment for older NVIDIA drivers, in a folder of its own.
CUDA ?= 13
ifeq ($(CUDA),13)
ENV := .venv
LOCK := requirements.lock
else ifeq ($(CUDA),12)
ENV := .venv-cuda12
LOCK := envs/cuda12.lock
else
$(error CUDA is '$(CUDA)' (by the $(origin CUDA)), and there are locks for 13 and 12: make CUDA=13 or make CUDA=12)
endif
BIN := $(ENV)/bin

# Where the environment is to lie, if not here: $(ENV) becomes a link to it, so it is said once.
dry_run := $(findstring n,$(filter-out -% VENV=%,$(firstword $(MAKEFLAGS))))
ifeq ($(origin VENV)$(dry_run),command line)
ifneq ($(shell $(PYTHON) envs/place.py $(ENV) "$(VENV)" && echo placed),placed)
$(error nothing was set up)
endif
endif
# uv's downloads lie there too, on the same disk.
elsewhere := $(shell test -L $(ENV) && cd $(ENV) && pwd -P)
ifneq ($(elsewhere),)
export UV_CACHE_DIR ?= $(elsewhere)/downloads
endif

# A folder with all that is installed, made by `make wheelhouse`; it is used instead of the internet.
WHEELHOUSE ?=
from = $(if $(filter-out wheelhouse,$(firstword $(MAKECMDGOALS))),$(if $(WHEELHOUSE),--no-index --find-links "$(WHEELHOUSE)"))

# Importing torch and transformers without compiled bytecode takes four times as long.
unexport PYTHONDONTWRITEBYTECODE

comma := ,
space := $(subst ,, )
seeds_alone = $(if $(SEEDS),seeds=$(subst $(space),$(comma),$(strip $(SEEDS))))
seeds = $(if $(SEEDS),--config $(seeds_alone))
mini = config.yaml profiles/mini/study.yaml
extended = config.yaml profiles/questions.yaml profiles/mini/study.yaml profiles/mini/questions.yaml
overlay = $(if $(OVERLAY),--configfile $(mini) $(OVERLAY))

# Packages that only the benchmarks need are installed beside the locked environment.
BENCH_PACKAGES ?= $(ENV)/bench
QUICK ?=
bench = PYTHONPATH=$(BENCH_PACKAGES) $(BIN)/python benchmarks

# Other worlds than the miniature's own, by their files in profiles/mini.
worlds = world1 world2

.PHONY: help setup wheelhouse image look mini mini-extended $(worlds) test test-slurm test-others quick fuzz faults outage bench error-rates first-study reference findings docs lint format lock latex slurm clean

help:
	@echo "make look           a first look: the paper's tables in miniature, one seed, to results/mini/"
	@echo "make mini           all of it: three seeds, and the controls"
	@echo "make mini SEEDS=0   the same with one seed"
	@echo "make mini-extended  what the paper leaves open too, and in two more worlds"
	@echo "make test           the tests"
	@echo "make quick          some of them, in a minute: layers, methods, training, evaluation"
	@echo "make fuzz           thousands of mutated configurations and data files"
	@echo "make faults         more than a thousand injected faults, to docs/reliability.md"
	@echo "make outage         ten minutes without Slurm's controller, with and without accounting"
	@echo "make bench          the benchmarks, to docs/benchmarks.md (make bench QUICK=1: whether they work)"
	@echo "make error-rates    how often the statistical tests err, to docs/statistics.md"
	@echo "make first-study    the results that docs/first-study.md shows"
	@echo "make findings       what results/mini says of the open questions, to docs/findings.md"
	@echo "make reference      results/mini as the committed results, to docs/reference"
	@echo "make docs           the generated parts of the documentation"
	@echo "make lint           ruff, snakefmt and snakemake --lint"
	@echo "make setup          only what the first call of any of these sets up: the packages"
	@echo "make CUDA=12 ...    any of these with packages for NVIDIA drivers older than 580"
	@echo "make wheelhouse     a folder of all packages, for a machine without internet"
	@echo "make image          the packages and this workflow as a container's image"
	@echo "make lock           resolve requirements.in anew"

look: $(ENV)/ready
	$(BIN)/snakemake --profile profiles/mini --configfile $(mini) profiles/mini/look.yaml $(OVERLAY) $(seeds)

mini: $(ENV)/ready
	$(BIN)/snakemake --profile profiles/mini $(overlay) $(seeds)

# What is said of the miniature rather than of one world is asked of three. A world begins with one
# training that all others wait for, so the other two worlds run side by side, on a core each.
mini-extended: $(ENV)/ready
	$(MAKE) --jobs 2 $(worlds)
	$(BIN)/snakemake --profile profiles/mini --configfile $(extended) profiles/mini/extended.yaml $(seeds)

$(worlds): $(ENV)/ready
	$(BIN)/snakemake --profile profiles/mini --cores 1 --configfile $(extended) profiles/mini/$@.yaml $(seeds) -- replicated

# Half of the time, the tests on Slurm wait for it, so the others run beside them.
test: $(ENV)/ready latex slurm
	$(MAKE) --no-print-directory --jobs 2 test-slurm test-others

test-slurm: $(ENV)/ready slurm
	$(BIN)/python -m pytest -v -m slurm

test-others: $(ENV)/ready latex
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slurm"

# What computes: kernels, layers, methods, training and evaluation.
quick: $(ENV)/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile $(patsubst %,tests/test_%.py,swiglu experts models train evaluate)

# Cases are made from their numbers, so that equal code gives equal cases.
fuzz: $(ENV)/ready
	$(BIN)/python -m pytest -n 2 $(wildcard tests/fuzz_*.py)

# Faults are drawn from a seed. It fails where one of them did not end as promised, and writes the counts
# all the same.
faults: $(ENV)/ready
	$(BIN)/python -m tests.faults --out docs/reliability.json; ended=$$?; $(BIN)/python docs/generate; exit $$ended

outage: $(ENV)/ready slurm
	MOFE_SLURM_AWAY=600 $(BIN)/python -m pytest -m slurm -k controller_that_is_away

# Run it on an idle machine, because it compares times. Real rows are read from MOFE_SHARED.
bench: $(BENCH_PACKAGES)/ready
	$(bench)/training.py $(if $(QUICK),--quick)
	$(bench)/evaluation.py $(if $(QUICK),--quick)
	$(bench)/decoding.py $(if $(QUICK),--quick)
	$(bench)/merge.py $(if $(QUICK),--quick)
	$(bench)/router.py $(if $(QUICK),--quick)
ifndef QUICK
	$(bench)/study.py --out benchmarks/results/look.json --profile profiles/mini --configfile $(mini) profiles/mini/look.yaml
	$(bench)/study.py --out benchmarks/results/mini.json --profile profiles/mini
	$(bench)/page.py
endif

$(BENCH_PACKAGES)/ready: benchmarks/requirements.txt $(ENV)/ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(BENCH_PACKAGES) --no-deps -r benchmarks/requirements.txt
	touch $@

# The studies are drawn from fixed seeds, so that equal code gives equal rates.
error-rates: $(ENV)/ready
	PYTHONPATH=. $(BIN)/python tests/simulate.py
	$(BIN)/python docs/generate

# What docs/first-study.md shows: its study, run once more.
first-study: $(ENV)/ready
	$(BIN)/python docs/generate/first_study.py
	$(BIN)/python docs/generate

# What reviewers compare their results with, from those of `make mini`.
reference: $(ENV)/ready
	$(BIN)/python docs/generate/reference.py results/mini
	$(BIN)/python docs/generate

# What the miniature answers to the open questions, from the results of `make mini-extended`.
findings: $(ENV)/ready
	$(BIN)/python docs/generate/findings.py results/mini
	$(BIN)/python docs/generate

# Tables of keys and records, and the schemas, from the descriptions in the code.
docs: $(ENV)/ready
	$(BIN)/python docs/generate

lint: $(ENV)/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: $(ENV)/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile rules

setup: $(ENV)/ready

# uv checks the pinned packages by hash, installs them in parallel and compiles their bytecode. The few
# that come as sources are built with what envs/build.lock pins.
$(ENV)/ready: $(ENV)/installer $(LOCK) envs/build.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode \
	  $(from) --build-constraints envs/build.lock -r $(LOCK)
	touch $@

$(ENV)/installer: envs/installer.lock
	$(PYTHON) mofe/platforms.py
	$(PYTHON) envs/place.py $(ENV)
	$(PYTHON) -m venv "$$(cd $(ENV) && pwd -P)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes $(from) -r envs/installer.lock
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

# What this machine would install, for others like it (the same system, processors and version of Python)
# that have no internet.
wheelhouse: $(ENV)/installer
	for lock in envs/installer.lock envs/build.lock $(LOCK); do \
	  $(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps \
	    --build-constraint envs/build.lock --dest "$(or $(WHEELHOUSE),wheelhouse)" -r $$lock || exit 1; \
	done

# The environment as an image: for podman and docker, and with apptainer's build for clusters.
BASE ?= debian:13-slim
IMAGE ?= mofe
BUILDAH ?= buildah
image:
	$(BUILDAH) build --build-arg BASE="$(BASE)" --build-arg CUDA=$(CUDA) --tag $(IMAGE) -f envs/Containerfile .

# The lock for CUDA 12 differs from the other one only where its torch wants it.
compile = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
lock: $(ENV)/ready
	$(compile) --upgrade requirements.in -o requirements.lock
	cp requirements.lock envs/cuda12.lock
	$(compile) envs/cuda12.in -o envs/cuda12.lock
	$(compile) --upgrade envs/installer.in -o envs/installer.lock
	$(compile) --upgrade envs/build.in -o envs/build.lock
	$(BIN)/python envs/conda.py requirements.lock envs/mofe.yaml
	$(BIN)/python envs/conda.py envs/cuda12.lock envs/cuda12.yaml

clean:
	rm -rf results .snakemake

endif
