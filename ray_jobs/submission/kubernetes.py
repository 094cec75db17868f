"""The same command for KubeRay: a RayJob, or a RayCronJob that makes one at its times.

A RayJob brings its own cluster and takes it away. On Kubernetes the code is in the image (`cluster/images`), so nothing
travels: paths must be s3://. `backoffLimit` makes a new cluster and runs the command again, which continues by its
ledger.
"""

import importlib.metadata
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modeling.errors import ConfigError
from ray_jobs.submission.cluster_spec import ray_cluster_spec
from ray_jobs.submission.config import SubmitConfig
from ray_jobs.submission.identity import DIGEST_CHARS, job_name
from ray_jobs.submission.wrapped import WrappedCommand, files_to_carry, read_commands, shared_paths
from workflows.progress import Summary

API_VERSION = "ray.io/v1"
LONGEST_NAME = 40  # characters; KubeRay and its pods add their own
RETRIES = 3
KEEP_FINISHED_S = 3600  # seconds that a finished job's record and cluster stay for a look at their logs


def print_manifest(config: SubmitConfig) -> Summary:
    """The manifest as YAML; its last line is a comment, so that the output can be piped into kubectl."""
    import yaml

    manifest = build_manifest(config)
    text = yaml.safe_dump(manifest, sort_keys=False, width=1000)
    headline = f"# {manifest['kind']} {manifest['metadata']['name']}: pipe this into `kubectl apply -f -`."
    return Summary(headline, "", details=text.rstrip("\n").splitlines(), record={"manifest": manifest})


def build_manifest(config: SubmitConfig) -> dict[str, Any]:
    """A RayJob, or with `cron` a RayCronJob; ConfigError if the command names something that a pod does not have."""
    commands = read_commands(config.words)
    working_dir = Path(config.working_dir).absolute()
    local = [str(path) for path in files_to_carry(commands, working_dir)] + shared_paths(commands)
    if local:
        raise ConfigError(
            f"{local[0]} is a path of this machine, which a pod does not have. Put it on s3:// and name it there "
            "(--config takes s3:// too), or mount a volume and write the manifest by hand."
        )
    name = _name(commands, working_dir)
    job = _job_spec(config, commands)
    metadata = {"name": name} | ({"namespace": config.namespace} if config.namespace else {})
    if config.cron is None:
        return {"apiVersion": API_VERSION, "kind": "RayJob", "metadata": metadata, "spec": job}
    zone = {"timeZone": config.time_zone} if config.time_zone else {}
    spec = {"schedule": config.cron, **zone, "jobTemplate": job}
    return {"apiVersion": API_VERSION, "kind": "RayCronJob", "metadata": metadata, "spec": spec}


def _job_spec(config: SubmitConfig, commands: list[WrappedCommand]) -> dict[str, Any]:
    version = _version_tag()
    cluster: Mapping[str, Any] = ray_cluster_spec(
        image=config.image or f"psreid:{version}-cpu",
        gpu_image=config.gpu_image or f"psreid:{version}-gpu",
        cpu_workers=config.cpu_workers,
        gpu_workers=config.gpu_workers,
    )
    return {
        "entrypoint": " && ".join(shlex.join(["psreid", *command.words]) for command in commands),
        "backoffLimit": RETRIES,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": KEEP_FINISHED_S,
        "rayClusterSpec": dict(cluster),
    }


def _name(commands: list[WrappedCommand], working_dir: Path) -> str:
    name = job_name(commands, working_dir, [])
    return name if len(name) <= LONGEST_NAME else f"psreid-line-{name[-DIGEST_CHARS:]}"


def _version_tag() -> str:
    try:
        return importlib.metadata.version("psreid")
    except importlib.metadata.PackageNotFoundError:
        return "latest"
