# Training and pair generation on NVIDIA GPUs. From the repository's root:
#   docker build -f cluster/images/cuda.Dockerfile -t REGISTRY/xdub/cuda:0.1.0-ray2.60.0-torch2.13.0-py311 .
# flash-attn takes an hour to compile; --build-arg FLASH_ATTN=0 omits it, because the model has other attention cores.
# Bases are pinned by tag; pin their digests, too, once your registry reports them (--build-arg BASE=...@sha256:...).
ARG BASE=python:3.11.14-slim-bookworm
# The CUDA version that torch's wheel is built for. Only its compiler is used, to build flash-attn.
ARG CUDA=nvidia/cuda:13.0.0-devel-ubuntu22.04

FROM ${CUDA} AS toolkit

FROM ${BASE} AS python
# A C compiler for Triton; wget for KubeRay's probes; rsync and ssh for `ray up`; verbs and hwloc for EFA's NCCL plugin.
RUN apt-get update && apt-get install -y --no-install-recommends \
      ca-certificates gcc libc6-dev openssh-client rsync wget ibverbs-providers libhwloc15 libibverbs1 librdmacm1 \
    && rm -rf /var/lib/apt/lists/*
COPY scripts/system-packages /tmp/system-packages
RUN /tmp/system-packages && rm -rf /tmp/system-packages /var/lib/apt/lists/*
COPY constraints.txt cluster/images/requirements.txt /tmp/
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN pip install -c /tmp/constraints.txt torch setuptools \
    && pip install --no-deps --no-build-isolation --use-pep517 -r /tmp/constraints.txt -r /tmp/requirements.txt

FROM python AS flash-attn
ARG FLASH_ATTN=1
COPY --from=toolkit /usr/local/cuda-13.0 /usr/local/cuda
RUN apt-get update && apt-get install -y --no-install-recommends g++ git && rm -rf /var/lib/apt/lists/*
# A100 and H100/H200; an L40S runs code that was built for an A100.
ENV CUDA_HOME=/usr/local/cuda FLASH_ATTENTION_FORCE_BUILD=TRUE FLASH_ATTN_CUDA_ARCHS=80;90 MAX_JOBS=8
RUN mkdir /wheels && if [ "$FLASH_ATTN" = 1 ]; then \
      pip install wheel && pip wheel --no-deps --no-build-isolation -w /wheels flash-attn==2.8.3.post2; fi

FROM python
COPY --from=flash-attn /wheels /tmp/wheels
RUN find /tmp/wheels -name '*.whl' -exec pip install --no-deps {} + && rm -rf /tmp/wheels

# User 1000 is the first user of an Ubuntu machine, so the container can read the files that `ray up` copies.
RUN useradd --create-home --uid 1000 --shell /bin/bash xdub
COPY setup.py pyproject.toml README.md LICENSE /opt/xdub/
COPY xdub /opt/xdub/xdub
COPY kernels /opt/xdub/kernels
RUN pip install --no-deps --no-build-isolation /opt/xdub && rm -rf /opt/xdub

# HOME must be set, because `ray up` reads it from the image and would use /root. No usage reports, and a token for Ray.
ENV HOME=/home/xdub PYTHONUNBUFFERED=1 DO_NOT_TRACK=true RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true \
    HF_HUB_DISABLE_TELEMETRY=1 RAY_AUTH_MODE=token
USER 1000:1000
WORKDIR /home/xdub
CMD ["xdub", "--help"]
