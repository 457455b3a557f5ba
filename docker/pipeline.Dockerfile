# The labelling images: Beam and the teacher, none of what only training needs.
#
# The command, which also labels on this machine:
#     docker build -f docker/pipeline.Dockerfile -t whisper-pipeline .
#     docker run --rm -v "$PWD:/data" whisper-pipeline run --config configs/mine.yaml
# A worker for Flink, Spark or Dataflow, with the launcher of Beam's own image as its entrypoint:
#     docker build -f docker/pipeline.Dockerfile -t whisper-worker --target worker .
#
# A teacher comes from a mount (`-v models:/models`, `--teacher.model /models/mine`), is fetched into
# /data/.cache, or is baked in by three lines: FROM whisper-worker, COPY mine /models/mine, and the path
# in the configuration.
#
# BASE is any image with Python 3.11 and its venv, for example one with CUDA. BEAM gives the launcher,
# and has to be the version in constraints.txt. PIP_FLAGS goes to pip, for example
# --build-arg PIP_FLAGS='--extra-index-url https://download.pytorch.org/whl/cpu' for torch without CUDA.
ARG BASE=python:3.11-slim-bookworm
ARG BEAM=apache/beam_python3.11_sdk:2.77.0

FROM ${BASE} AS build
ARG PIP_FLAGS=""
ARG EXTRAS="pipeline,fast,vad,s3"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
WORKDIR /src
RUN python3 -m venv /opt/venv
COPY docker/constraints.txt docker/constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY distill distill
RUN pip install ${PIP_FLAGS} -c docker/constraints.txt ".[${EXTRAS}]"

FROM ${BASE} AS installed
ENV PYTHONUNBUFFERED=1 PATH=/opt/venv/bin:$PATH HF_HUB_DISABLE_TELEMETRY=1 \
    HF_HOME=/data/.cache/huggingface WHISPER_DISTILLERY_CACHE=/data/.cache/whisper-distillery
RUN useradd --create-home --uid 1000 whisper && mkdir /data && chown whisper /data
COPY --from=build /opt/venv /opt/venv
USER 1000
WORKDIR /data

FROM ${BEAM} AS beam

FROM installed AS worker
# Beam's launcher would make a virtual environment of its own, in which nothing of ours is installed.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
COPY --from=beam /opt/apache/beam /opt/apache/beam
ENTRYPOINT ["/opt/apache/beam/boot"]

FROM installed AS command
ENTRYPOINT ["whisper-pipeline"]
CMD ["--help"]
