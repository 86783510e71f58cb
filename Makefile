# Thin: each target is a command a person could type. Paths are relative, so that a folder with a space in its name works.
PYTHON ?= python3
SLURM_FOLDER ?= /tmp/genae-slurm
export OMP_NUM_THREADS ?= 1

.PHONY: quickstart test lint test-slow test-slurm slurm-up slurm-down bench clean

quickstart: .venv/installed
	.venv/bin/python -m genae run experiments/quickstart.yaml --scale desk

test: lint
	.venv/bin/python -m pytest -n 2 --dist worksteal -m "not slow and not quickstart and not slurm"
	.venv/bin/python -m pytest -m "quickstart and not slow"

lint: .venv/tested
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/lint-imports --config setup.cfg

test-slow: .venv/tested
	.venv/bin/python -m pytest -n 2 --dist worksteal -m "slow and not slurm"

# On a real SLURM of two nodes on this machine. Tests mostly wait there, so each has a process of its own.
test-slurm: .venv/tested
	.venv/bin/python -m pytest -n 16 --dist worksteal -m slurm tests/slurm

# The same SLURM, for a person to try.
slurm-up:
	$(PYTHON) tests/slurm_cluster.py up "$(SLURM_FOLDER)"

slurm-down:
	$(PYTHON) tests/slurm_cluster.py down "$(SLURM_FOLDER)"

bench: .venv/benched
	.venv/bin/python benchmarks/loader.py
	.venv/bin/python benchmarks/frechet.py
	.venv/bin/python benchmarks/lde.py
	.venv/bin/python benchmarks/mmd.py
	.venv/bin/python benchmarks/parzen.py
	.venv/bin/python benchmarks/train_step.py

# The package, then what tests and benchmarks need on top; made anew when the requirements change.
.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/tested: .venv/installed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

.venv/benched: .venv/installed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	touch $@

clean:
	rm -rf .venv results/runs results/quickstart* reports/quickstart*
