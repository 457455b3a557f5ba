# quickstart  the whole chain on the embedded corpus: label, filter, distil, evaluate, one table
# test        what a commit must pass: check, then the tests
# check       style, types and the map of the packages
# faults      kill runs at forty points of their work, and see that nothing is lost
# bench       speed of the parts, for comparing two versions on one machine
#
# PYTHON picks the interpreter of a new .venv, PIP_FLAGS is added to the installation, for example
# PIP_FLAGS='--extra-index-url https://download.pytorch.org/whl/cpu' for torch without CUDA.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help quickstart test check faults bench

PYTHON ?= python3
PIP_FLAGS ?=
BIN := .venv/bin
OUTPUT := runs/quickstart

help:
	@sed -n 's/^# \?//p; /^$$/q' Makefile

.venv/.installed: pyproject.toml docker/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check $(PIP_FLAGS) -c docker/constraints.txt -e '.[dev]'
	touch $@

quickstart: export HF_HUB_OFFLINE = 1
quickstart: export HF_HUB_DISABLE_TELEMETRY = 1
quickstart: .venv/.installed
	$(BIN)/whisper-pipeline run --config configs/pipeline/quickstart.yaml
	$(BIN)/whisper-distill init --teacher embedded --decoder_layers 2 --output $(OUTPUT)/init
	$(BIN)/whisper-distill train --config configs/distill/quickstart.yaml
	$(BIN)/whisper-distill evaluate --config configs/evaluate/quickstart.yaml
	$(BIN)/python -m pipeline.embedded.summary $(OUTPUT)

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

bench: .venv/.installed
	$(BIN)/python -m pytest tests/benchmarks -o python_files='bench_*.py' -q -s

faults: export FAULT_POINTS = 40
faults: .venv/.installed
	$(BIN)/python -m pytest tests/pipeline/test_faults.py tests/pipeline/test_faults_disk.py -q -s
