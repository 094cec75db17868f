"""Fixtures that many tests share: a local Ray with two CPUs, and an S3 server that can go away."""

import os
from collections.abc import Iterator

import pytest

from tests.s3_server import S3Server

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray with two CPUs for the whole test session."""
    import ray

    from workflows.ray_cluster import ensure_ray

    ensure_ray(num_cpus=2)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3_server(s3_process: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A running S3 server with its credentials in the environment; it may be stopped and started by the test.

    A Ray that already runs does not have these variables, so a test that uses both starts its step in a subprocess
    with `s3_server.environment`.
    """
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_process.environment.items():
        monkeypatch.setenv(name, value)
    yield s3_process
    if not s3_process.is_running:
        s3_process.start()
