# The training image: PyTorch and transformers, no Beam.
#     docker build -f docker/distill.Dockerfile -t whisper-distill .
#     docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/data" -v whisper-models:/models \
#         whisper-distill train --config configs/mine.yaml
# Several GPUs: --entrypoint torchrun, then `--nproc_per_node 8 -m distill train --config ...`.
# BASE is any Debian or Ubuntu image with Python 3.11 or newer and its venv. PIP_FLAGS goes to pip, for
# example '--extra-index-url https://download.pytorch.org/whl/cpu' for torch without CUDA.
ARG BASE=python:3.11-slim-bookworm

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
RUN pip install ${PIP_FLAGS} -c docker/constraints.txt '.[distill]'

FROM ${BASE} AS command
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_DISABLE_TELEMETRY=1 \
    HF_HOME=/models WHISPER_DISTILLERY_CACHE=/models/shards
# Open to every user, so that `--user "$(id -u)"` works where the files of /data belong to another than 1000.
RUN useradd --create-home --uid 1000 whisper && install --directory --mode 1777 /data /models
COPY --from=packages /opt/venv /opt/venv
USER 1000
WORKDIR /data
ENTRYPOINT ["whisper-distill"]
CMD ["--help"]
