# GPU workers.   docker build -f cluster/images/gpu.Dockerfile -t psreid:0.1.0-gpu .
# torch's wheels bring CUDA 13.0 themselves: the machine needs a driver that knows it, and the NVIDIA container toolkit.
# Versions are those of constraints.txt; the ARGs repeat the ones that clients compare, and a test keeps them equal.
FROM python:3.11-slim-bookworm

ARG RAY_VERSION=2.60.0
ARG TORCH_VERSION=2.12.1
ARG TORCHVISION_VERSION=0.27.1

# gcc is what triton compiles its kernels' launchers with.
RUN apt-get update && apt-get install --yes --no-install-recommends wget tini gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/psreid
COPY constraints.txt pyproject.toml README.md ./
RUN pip install --no-cache-dir -c constraints.txt "torch==${TORCH_VERSION}" "torchvision==${TORCHVISION_VERSION}"
COPY modeling modeling
COPY workflows workflows
COPY ray_jobs ray_jobs
RUN pip install --no-cache-dir -c constraints.txt "ray[default]==${RAY_VERSION}" .

RUN useradd --create-home --uid 1000 psreid
USER psreid
WORKDIR /home/psreid
ENV RAY_worker_niceness=0 RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["tini", "--"]
CMD ["psreid", "doctor"]
