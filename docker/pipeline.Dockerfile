# The labelling image: Beam and the teacher, nothing of the training.
#     docker build -f docker/pipeline.Dockerfile -t whisper-pipeline .
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" -v whisper-models:/models \
#         whisper-pipeline run --config configs/mine.yaml
#
# As a container that Beam starts on its workers (Dataflow, Flink and Spark with environment_type DOCKER):
#     docker build -f docker/pipeline.Dockerfile --target worker -t whisper-worker .
#
# BASE is any Debian or Ubuntu image with Python 3.11 or newer and its venv; with a GPU, one that has
# CUDA's libraries. The teacher is fetched into /models on first use, the volume keeps it there;
# --build-arg TEACHER=openai/whisper-large-v3 bakes it into the image instead. PIP_FLAGS goes to pip, for
# example '--extra-index-url https://download.pytorch.org/whl/cpu' for torch without CUDA.
ARG BASE=python:3.11-slim-bookworm
# Of the version that docker/constraints.txt names; only `boot` is taken from it.
ARG BEAM=apache/beam_python3.11_sdk:2.77.0

FROM ${BASE} AS packages
ARG PIP_FLAGS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src
COPY docker/constraints.txt docker/constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY distill distill
# hadolint ignore=SC2086
RUN pip install ${PIP_FLAGS} -c docker/constraints.txt '.[pipeline,fast,vad,video,s3]'

FROM ${BASE} AS runtime
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_DISABLE_TELEMETRY=1 \
    HF_HOME=/models WHISPER_DISTILLERY_CACHE=/models/converted
# Open to every user, so that `--user "$(id -u)"` works where the files of /data belong to another than 1000.
RUN useradd --create-home --uid 1000 whisper && install --directory --mode 1777 /data /models
COPY --from=packages /opt/venv /opt/venv
USER 1000
ARG TEACHER=""
RUN if [ -n "${TEACHER}" ]; then hf download "${TEACHER}"; fi
WORKDIR /data

FROM ${BEAM} AS beam

FROM runtime AS worker
COPY --from=beam /opt/apache/beam/boot /opt/apache/beam/boot
# The packages above are the environment of the jobs: `boot` makes none of its own.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
ENTRYPOINT ["/opt/apache/beam/boot"]

FROM runtime AS command
ENTRYPOINT ["whisper-pipeline"]
CMD ["--help"]
