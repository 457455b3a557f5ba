# The training image: PyTorch and transformers, no Beam.
#     docker build -f docker/distill.Dockerfile -t whisper-distill .
#     docker run --rm -v "$PWD:/data" whisper-distill train --config configs/mine.yaml
# BASE is any image with Python 3.11 and its venv. PIP_FLAGS goes to pip, for example
# --build-arg PIP_FLAGS='--extra-index-url https://download.pytorch.org/whl/cpu' for torch without CUDA.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG PIP_FLAGS=""
ARG EXTRAS="distill"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
WORKDIR /src
RUN python3 -m venv /opt/venv
COPY docker/constraints.txt docker/constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY distill distill
RUN pip install ${PIP_FLAGS} -c docker/constraints.txt ".[${EXTRAS}]"

FROM ${BASE}
ENV PYTHONUNBUFFERED=1 PATH=/opt/venv/bin:$PATH HF_HUB_DISABLE_TELEMETRY=1 \
    HF_HOME=/data/.cache/huggingface
RUN useradd --create-home --uid 1000 whisper && mkdir /data && chown whisper /data
COPY --from=build /opt/venv /opt/venv
USER 1000
WORKDIR /data
ENTRYPOINT ["whisper-distill"]
CMD ["--help"]
