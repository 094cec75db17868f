# Head and CPU workers.   docker build -f cluster/images/cpu.Dockerfile -t psreid:0.1.0-cpu .
# Versions are those of constraints.txt; the ARGs repeat the ones that clients compare, and a test keeps them equal.
FROM python:3.11-slim-bookworm

ARG RAY_VERSION=2.60.0
ARG TORCH_VERSION=2.12.1
ARG TORCHVISION_VERSION=0.27.1
# An index with CPU-only builds of torch makes a much smaller image: --build-arg TORCH_INDEX_URL=...
ARG TORCH_INDEX_URL=""

# wget is for the health probes of Kubernetes.
RUN apt-get update && apt-get install --yes --no-install-recommends wget tini && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/psreid
COPY constraints.txt pyproject.toml README.md ./
RUN pip install --no-cache-dir -c constraints.txt \
        ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
        "torch==${TORCH_VERSION}" "torchvision==${TORCHVISION_VERSION}"
COPY modeling modeling
COPY workflows workflows
COPY ray_jobs ray_jobs
RUN pip install --no-cache-dir -c constraints.txt "ray[default]==${RAY_VERSION}" .

RUN useradd --create-home --uid 1000 psreid
USER psreid
WORKDIR /home/psreid
# Ray's own niceness of 15 starves workers; without a token Ray shall not start at all.
ENV RAY_worker_niceness=0 RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 PYTHONUNBUFFERED=1
ENTRYPOINT ["tini", "--"]
CMD ["psreid", "doctor"]
