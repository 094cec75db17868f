"""`psreid doctor`: what is wrong with this machine or cluster, and how to mend it, one line each.

Every check is a function that gives findings and never raises; OK, WARN (it works, but not well) or FAIL.
"""

import argparse
import importlib.metadata
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.config import StepConfig

if TYPE_CHECKING:
    from packaging.requirements import Requirement

MIN_MEMORY_BYTES = 4 << 30
MIN_FREE_DISK_BYTES = 5 << 30
MIN_SHARED_MEMORY_BYTES = 512 << 20
STORAGE_PATIENCE_S = 5.0  # a doctor does not wait out an outage


class DoctorConfig(StepConfig):
    """What to look at besides this machine."""

    storage: str | None = None
    """Folder or s3:// prefix to write to, read from and clean up again."""
    model: str = "tiny"
    """Model whose weights are loaded: a preset or the folder of a saved model."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: str
    """OK, WARN or FAIL."""
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:<4}  {self.subject}: {self.text}"


def run_doctor(config: DoctorConfig, progress: Progress) -> Summary:
    """Runs every check; the exit code is 1 if any of them failed."""
    findings: list[Finding] = []
    for subject, check in _checks(config).items():
        progress.say(f"checking {subject} ...")
        try:
            findings += check()
        except Exception as error:
            findings.append(Finding("FAIL", subject, f"the check itself failed: {type(error).__name__}: {error}"))
    failed = sum(finding.level == "FAIL" for finding in findings)
    warned = sum(finding.level == "WARN" for finding in findings)
    if failed:
        headline = f"{failed} of {len(findings)} checks failed: mend the lines marked FAIL."
    else:
        headline = f"All {len(findings)} checks passed" + (f", {warned} with a warning." if warned else ".")
    return Summary(
        headline,
        output="",
        figures={"checks": len(findings), "failed": failed, "warnings": warned},
        details=[str(finding) for finding in findings],
        record={"failed": failed, "warnings": warned, "findings": [vars(finding) for finding in findings]},
        exit_code=1 if failed else 0,
    )


def _checks(config: DoctorConfig) -> dict[str, Callable[[], Iterator[Finding]]]:
    return {
        "versions": check_versions,
        "memory": check_memory,
        "disk": check_disk,
        "weights": lambda: check_weights(config.model),
        "storage": lambda: check_storage(config.storage),
        "Ray": check_ray,
    }


def check_versions() -> Iterator[Finding]:
    """Python and every required package against the ranges that this distribution declares."""
    from packaging.requirements import Requirement

    version = ".".join(str(part) for part in sys.version_info[:3])
    good = sys.version_info >= (3, 11)
    yield Finding("OK" if good else "FAIL", "python", version + ("" if good else ": install Python 3.11 or newer"))
    try:
        declared = importlib.metadata.requires("psreid") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("FAIL", "psreid", "not installed in this environment: run `make install`")
        return
    required = [requirement for text in declared if not (requirement := Requirement(text)).marker]
    wrong = [problem for requirement in required if (problem := _version_problem(requirement))]
    for problem in wrong:
        yield Finding("FAIL", "versions", problem)
    if not wrong:
        yield Finding("OK", "versions", f"{len(required)} required packages are in their ranges")


def _version_problem(requirement: "Requirement") -> str | None:
    try:
        found = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is missing, {requirement} is needed: run `make install`"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name} is {found}, {requirement} is needed: run `make install`"
    return None


def check_memory() -> Iterator[Finding]:
    """Main memory and the shared memory that Ray's object store lives in."""
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB available"
    enough = memory.available >= MIN_MEMORY_BYTES
    advice = "" if enough else f": less than {MIN_MEMORY_BYTES >> 30} GiB; close programs, or use smaller pools"
    yield Finding("OK" if enough else "WARN", "memory", text + advice)
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free
        enough = free >= MIN_SHARED_MEMORY_BYTES
        advice = "" if enough else ": too small for Ray's object store; in a container, raise --shm-size to 1g or more"
        yield Finding("OK" if enough else "WARN", "shared memory", f"{free / 2**30:.1f} GiB free in /dev/shm{advice}")


def check_disk() -> Iterator[Finding]:
    """Free space where outputs and Ray's session files usually go."""
    for place in dict.fromkeys([str(Path.cwd()), tempfile.gettempdir()]):
        free = shutil.disk_usage(place).free
        enough = free >= MIN_FREE_DISK_BYTES
        advice = "" if enough else f": less than {MIN_FREE_DISK_BYTES >> 30} GiB; free some, or write elsewhere"
        yield Finding("OK" if enough else "WARN", "disk", f"{free / 2**30:.1f} GiB free at {place}{advice}")


def check_weights(model: str) -> Iterator[Finding]:
    """Whether the model loads, and how long that takes."""
    from modeling.errors import PsreidError
    from modeling.ps_reid.judge import Judge
    from workflows.tracking.registry import local_model

    started = time.monotonic()
    try:
        Judge.load(local_model(model))
    except PsreidError as error:
        yield Finding("FAIL", "weights", str(error))
        return
    yield Finding("OK", "weights", f"model {model!r} loads in {time.monotonic() - started:.1f} s")


def check_storage(uri: str | None) -> Iterator[Finding]:
    """Writes, lists, reads and removes a small file in the folder, if one was given."""
    from modeling.errors import PsreidError
    from workflows.storage import Folder

    if uri is None:
        keys = bool(os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_PROFILE"))
        s3 = "S3 credentials are in the environment" if keys else "no S3 credentials in the environment"
        yield Finding("OK", "storage", f"not checked, {s3}; give --storage FOLDER or s3://bucket/prefix to check one")
        return
    name = f".psreid-doctor-{uuid.uuid4().hex[:8]}"
    started = time.monotonic()
    try:
        folder = Folder(uri, retry_for_s=STORAGE_PATIENCE_S)
        folder.write_bytes(name, b"psreid doctor")
        readable = folder.read_bytes(name) == b"psreid doctor" and name in folder.list_files(name)
        folder.remove(name)
    except PsreidError as error:
        yield Finding("FAIL", "storage", str(error))
        return
    took_ms = 1000 * (time.monotonic() - started)
    if readable:
        yield Finding("OK", "storage", f"{folder.uri}: write, list, read and remove work ({took_ms:.0f} ms)")
    else:
        yield Finding("FAIL", "storage", f"{folder.uri}: what was written did not come back; check the server")


def check_ray() -> Iterator[Finding]:
    """Starts (or reaches) Ray, runs one task, and counts what it offers."""
    started = time.monotonic()
    from workflows.ray_cluster import ensure_ray

    address = os.environ.get("RAY_ADDRESS")
    try:
        ensure_ray()
        import ray

        answer = ray.get(ray.remote(_process_id).remote(), timeout=120)
    except Exception as error:
        advice = (
            f"check that a cluster listens at RAY_ADDRESS={address}"
            if address
            else "look into /tmp/ray/session_latest/logs, and check that loopback connections are allowed"
        )
        yield Finding("FAIL", "Ray", f"{type(error).__name__}: {error}; {advice}")
        return
    where = f"reached at {address}" if address else "starts locally"
    yield Finding("OK", "Ray", f"{where}, a task ran in process {answer} ({time.monotonic() - started:.1f} s)")
    resources = ray.cluster_resources()
    cores = resources.get("CPU", 0.0)
    advice = "" if cores >= 2 else ": pipelines run, but their stages take turns; two or more are better"
    yield Finding("OK" if cores >= 2 else "WARN", "cores", f"{cores:g}{advice}")
    yield from _check_gpus(resources.get("GPU", 0.0))
    ray.shutdown()


def _process_id() -> int:
    return os.getpid()


def _check_gpus(seen_by_ray: float) -> Iterator[Finding]:
    import torch

    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not seen_by_ray and not usable:
        yield Finding("OK", "GPUs", "none; everything runs on the CPU (set device=cuda where there is one)")
    elif seen_by_ray and not usable and "RAY_ADDRESS" not in os.environ:
        yield Finding(
            "WARN", "GPUs", f"Ray sees {seen_by_ray:g}, torch none: install a CUDA build of torch and a driver"
        )
    else:
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(usable)) or "on other nodes"
        yield Finding("OK", "GPUs", f"{seen_by_ray:g} ({names})")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--storage", default=None, metavar="URI", help="also check this folder or s3:// prefix")
    parser.add_argument("--model", default=None, help="model to load (default: the shipped one)")


def _plan(config: DoctorConfig) -> Plan:
    return Plan({"checks": ", ".join(_checks(config))}, expected_s=20.0)


COMMAND = Command(
    "doctor",
    "check this machine: Ray, memory, storage, weights, versions",
    DoctorConfig,
    _add_arguments,
    run_doctor,
    _plan,
)
