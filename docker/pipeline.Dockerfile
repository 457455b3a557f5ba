# The labelling image: Beam, the teacher, no training code's dependencies.
#     docker build -f docker/pipeline.Dockerfile -t whisper-pipeline .
#     docker run --rm -v "$PWD:/data" whisper-pipeline run --config configs/mine.yaml
# BASE is any image with Python 3.11 or newer and its venv. PIP_FLAGS goes to pip, for example
# --build-arg PIP_FLAGS='--extra-index-url https://download.pytorch.org/whl/cpu' for torch without CUDA.
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG PIP_FLAGS=""

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HF_HUB_DISABLE_TELEMETRY=1 HF_HOME=/data/.cache/huggingface
RUN useradd --create-home --uid 1000 whisper && mkdir /data && chown whisper /data \
    && python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

WORKDIR /src
COPY docker/constraints.txt docker/constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY distill distill
RUN pip install ${PIP_FLAGS} -c docker/constraints.txt '.[pipeline]'

USER whisper
WORKDIR /data
ENTRYPOINT ["whisper-pipeline"]
CMD ["--help"]
