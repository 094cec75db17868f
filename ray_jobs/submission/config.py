"""Settings of `psreid submit` and `psreid jobs`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workflows.config import StepConfig


class SubmitConfig(StepConfig):
    """Which command, to which cluster, and what to do while it runs."""

    words: tuple[str, ...] = ()
    """The psreid command to run as a job; several are separated by `--` and run one after the other."""
    address: str | None = None
    """URL of the cluster's dashboard, such as http://HOST:8265; by default RAY_API_SERVER_ADDRESS."""
    working_dir: str = "."
    """Folder whose modules and configs travel with the job, and below which files named in the command lie."""
    wait: bool = True
    """Whether to show the job's log until it ends and to end with its exit code."""
    again: bool = False
    """Whether a job that has succeeded already is run again."""

    kuberay: bool = False
    """Print a RayJob manifest for KubeRay instead of submitting."""
    cron: str | None = None
    """Five fields of cron: print a RayCronJob manifest instead of submitting."""
    time_zone: str | None = None
    """Time zone of `cron`, such as Europe/Berlin; by default the operator's."""
    namespace: str | None = None
    """Kubernetes namespace of the manifest."""
    image: str | None = None
    """Image of head and CPU workers; by default psreid:<version>-cpu."""
    gpu_image: str | None = None
    """Image of GPU workers; by default psreid:<version>-gpu."""
    cpu_workers: Annotated[int, Field(ge=0)] = 8
    """Most CPU workers that the manifest's cluster grows to."""
    gpu_workers: Annotated[int, Field(ge=0)] = 4
    """Most GPU workers that the manifest's cluster grows to."""

    @property
    def prints_manifest(self) -> bool:
        return self.kuberay or self.cron is not None

    @model_validator(mode="after")
    def _check(self) -> "SubmitConfig":
        if self.cron is not None and len(self.cron.split()) != 5:
            raise ValueError(f"cron {self.cron!r} must have five fields, such as '0 2 * * *' for every night at two")
        if self.time_zone and self.cron is None:
            raise ValueError("time_zone goes with cron")
        return self


class JobsConfig(StepConfig):
    """Which jobs to look at or to stop."""

    action: Literal["list", "logs", "status", "stop"]
    """What to do."""
    job_id: str | None = None
    """The job; every action but `list` needs it."""
    address: str | None = None
    """URL of the cluster's dashboard, such as http://HOST:8265; by default RAY_API_SERVER_ADDRESS."""
    follow: bool = False
    """logs: go on until the job ends, and end with its exit code."""

    @model_validator(mode="after")
    def _check(self) -> "JobsConfig":
        if (self.action == "list") != (self.job_id is None):
            wants = (
                "takes no job id" if self.action == "list" else "needs the id of a job; `psreid jobs list` shows them"
            )
            raise ValueError(f"{self.action} {wants}")
        return self
