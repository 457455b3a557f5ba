# quickstart  the whole chain on the embedded corpus: label, filter, distil, evaluate, one table
# test        what a commit must pass: check, then the tests
# check       style, types and the map of the packages
# faults      kill runs at forty points of their work, and see that nothing is lost
# dist-check  build wheel and sdist, install each in an empty environment, and start the commands
# reference   API reference from the docstrings, in build/reference
# bench       speed of the parts, for comparing two versions on one machine
#
# PYTHON picks the interpreter of a new .venv, PIP_FLAGS is added to the installation, for example
# PIP_FLAGS='--extra-index-url https://download.pytorch.org/whl/cpu' for torch without CUDA.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help quickstart test check faults dist-check reference bench

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

# The sdist without extras: what the command lines need must be among the base dependencies. The wheel
# with all that users have: they must agree on versions, and label, write and read a dataset.
dist-check:
	rm -rf build/dist-check && mkdir -p build/dist-check
	$(PYTHON) -m venv build/dist-check/builder
	build/dist-check/builder/bin/pip install --disable-pip-version-check -q build
	build/dist-check/builder/bin/python -m build --outdir build/dist-check/dist .
	for kind in whl tar.gz; do \
	  $(PYTHON) -m venv build/dist-check/$$kind && \
	  extras=$$(test $$kind = whl && echo '[pipeline,distill,fast,vad,video,s3,gcs,export]' || true) && \
	  build/dist-check/$$kind/bin/pip install --disable-pip-version-check -q $(PIP_FLAGS) \
	    -c docker/constraints.txt "$$(echo build/dist-check/dist/*.$$kind)$$extras" && \
	  (cd build/dist-check && $$kind/bin/whisper-pipeline --version && \
	    $$kind/bin/whisper-distill --version && \
	    $$kind/bin/python -c "import distill, pipeline.schema as s, pathlib as p; \
	here = p.Path(s.__file__).parent; \
	assert (here / 'py.typed').is_file() and (p.Path(distill.__file__).parent / 'py.typed').is_file(); \
	assert (here / 'templates/report.html').is_file() and (here / 'phrases.yaml').is_file(); \
	assert (s.EMBEDDED_FOLDER / 'teacher/model.safetensors').is_file(); \
	assert len(list((s.EMBEDDED_FOLDER / 'audio').iterdir())) > 10") || exit 1; \
	done
	cd build/dist-check && printf '%s\n' 'output: labelled' 'teacher: {model: embedded, window: clip}' \
	  'corpora: [{name: embedded, kind: embedded, language: en, licence: cc0-1.0, split: validation}]' \
	  'filter: {splits: [validation]}' > check.yaml && \
	  HF_HUB_OFFLINE=1 whl/bin/whisper-pipeline run --config check.yaml && \
	  whl/bin/pip check && \
	  HF_HUB_OFFLINE=1 whl/bin/whisper-distill evaluate --models embedded --data labelled --split validation \
	    --max_clips 4 --output judged

reference: .venv/.installed
	$(BIN)/pdoc --docformat google --output-directory build/reference pipeline distill '!.*__main__'

faults: export FAULT_POINTS = 40
faults: .venv/.installed
	$(BIN)/python -m pytest tests/pipeline/test_faults.py tests/pipeline/test_faults_disk.py -q -s
