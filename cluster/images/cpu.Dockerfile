# Ray's head, the data pool and the MLflow server. From the repository's root:
#   docker build -f cluster/images/cpu.Dockerfile -t REGISTRY/xdub/cpu:0.1.0-ray2.60.0-torch2.13.0-py311 .
# The base is pinned by tag. Pin its digest, too, once your registry reports it:
#   --build-arg BASE=python:3.11.14-slim-bookworm@sha256:...
ARG BASE=python:3.11.14-slim-bookworm
FROM ${BASE}

# A C compiler for packages without a wheel; wget for KubeRay's probes; rsync and ssh for `ray up`.
RUN apt-get update && apt-get install -y --no-install-recommends \
      ca-certificates gcc libc6-dev openssh-client rsync wget \
    && rm -rf /var/lib/apt/lists/*
COPY scripts/system-packages /tmp/system-packages
RUN /tmp/system-packages && rm -rf /tmp/system-packages /var/lib/apt/lists/*

# Like `make`: torch with its own requirements, everything else exactly as pinned and without further requirements.
COPY constraints.txt cluster/images/requirements.txt /tmp/
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu -c /tmp/constraints.txt torch setuptools \
    && pip install --no-deps --no-build-isolation --use-pep517 -r /tmp/constraints.txt -r /tmp/requirements.txt

# User 1000 is the first user of an Ubuntu machine, so the container can read the files that `ray up` copies.
# /artifacts is where a small MLflow server keeps files (cluster/mlflow).
RUN useradd --create-home --uid 1000 --shell /bin/bash xdub && install -d -o 1000 -g 1000 /artifacts
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
