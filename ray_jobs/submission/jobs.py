"""Looking at the jobs of a cluster, and stopping one."""

import difflib
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from modeling.errors import ConfigError, JobError
from ray_jobs.submission.cluster_client import connect
from ray_jobs.submission.config import JobsConfig
from ray_jobs.submission.submit import watch
from ray_jobs.submission.watch import exit_code_of
from workflows.progress import Plan, Progress, Summary

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

STOP_WITHIN_S = 30.0


def run_jobs(config: JobsConfig, progress: Progress) -> Summary:
    """Lists jobs, or shows the log or the state of one, or stops it."""
    client = connect(config.address)
    jobs = sorted((job for job in client.list_jobs() if job.submission_id), key=lambda job: job.start_time or 0)
    if config.action == "list":
        return _list(client, jobs)
    job = _find(jobs, config.job_id or "")
    if config.action == "status":
        return _status(client, job)
    if config.action == "stop":
        return _stop(client, job)
    if config.follow:
        return watch(client, str(job.submission_id))
    log = client.get_job_logs(str(job.submission_id)).rstrip("\n")
    return Summary(_one_line(job), client.get_address(), _figures(job), details=log.splitlines())


def plan_jobs(config: JobsConfig) -> Plan:
    """What would be asked of the cluster."""
    return Plan({"action": config.action, "job": config.job_id or "every job"}, expected_s=1.0)


def _list(client: "JobSubmissionClient", jobs: Sequence["JobDetails"]) -> Summary:
    running = sum(not job.status.is_terminal() for job in jobs)
    headline = f"{len(jobs)} job{'' if len(jobs) == 1 else 's'} at {client.get_address()}, {running} not finished."
    record = {"jobs": [_figures(job) for job in jobs]}
    return Summary(headline, client.get_address(), details=[_one_line(job) for job in jobs], record=record)


def _status(client: "JobSubmissionClient", job: "JobDetails") -> Summary:
    return Summary(_one_line(job), client.get_address(), _figures(job), details=[f"command: {job.entrypoint}"])


def _stop(client: "JobSubmissionClient", job: "JobDetails") -> Summary:
    job_id = str(job.submission_id)
    if job.status.is_terminal():
        return Summary(f"{job_id} has ended already: {job.status.value}.", client.get_address(), _figures(job))
    client.stop_job(job_id)
    give_up_at = time.monotonic() + STOP_WITHIN_S
    while not (job := client.get_job_info(job_id)).status.is_terminal():
        if time.monotonic() > give_up_at:
            raise JobError(
                f"{job_id} has not stopped within {STOP_WITHIN_S:.0f} s. Ask again with `psreid jobs status`."
            )
        time.sleep(0.3)
    headline = f"Stopped {job_id}. Submit the same command to continue where it was."
    return Summary(headline, client.get_address(), _figures(job))


def _find(jobs: Sequence["JobDetails"], job_id: str) -> "JobDetails":
    known = {str(job.submission_id): job for job in jobs}
    if job_id in known:
        return known[job_id]
    near = difflib.get_close_matches(job_id, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "`psreid jobs list` shows the jobs that it knows."
    raise ConfigError(f"the cluster knows no job {job_id!r}; {hint}")


def _one_line(job: "JobDetails") -> str:
    code = f" ({exit_code_of(job)})" if job.status.value == "FAILED" else ""
    return f"{job.submission_id}  {job.status.value}{code}  {_when(job)}"


def _when(job: "JobDetails") -> str:
    if not job.start_time:
        return "not started"
    started = datetime.fromtimestamp(job.start_time / 1000)
    took_s = (job.end_time / 1000 if job.end_time else time.time()) - job.start_time / 1000
    return f"started {started:%Y-%m-%d %H:%M:%S}, {'ran' if job.end_time else 'running for'} {took_s:.0f} s"


def _figures(job: "JobDetails") -> dict[str, float | int | str]:
    figures: dict[str, float | int | str] = {"job_id": str(job.submission_id), "status": job.status.value}
    if job.status.is_terminal():
        figures["exit_code"] = exit_code_of(job)
    return figures | {
        "entrypoint": job.entrypoint,
        "start_time_ms": job.start_time or 0,
        "end_time_ms": job.end_time or 0,
    }
