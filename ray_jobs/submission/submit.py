"""Submitting: read the command, pack what travels, decide by the job's name, send it, watch it."""

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.errors import ConfigError, JobError
from ray_jobs.submission.cluster_client import connect, find_address
from ray_jobs.submission.config import SubmitConfig
from ray_jobs.submission.identity import Action, Decision, decide, job_name
from ray_jobs.submission.package import build_package
from ray_jobs.submission.watch import exit_code_of, watch_job
from ray_jobs.submission.wrapped import WrappedCommand, files_to_carry, read_commands
from workflows.progress import Plan, Progress, Summary

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DRIVER = ("python", "-m", "ray_jobs.submission.driver", "--")
BAD_INPUT, INTERRUPTED = 2, 130


@dataclass(frozen=True)
class Submission:
    """A command that was read, and what it brings along."""

    commands: list[WrappedCommand]
    working_dir: Path
    carried: list[Path]
    name: str

    @property
    def entrypoint(self) -> str:
        """The shell command that the cluster runs."""
        words = [word for command in self.commands for word in ("--", *command.words)]
        return shlex.join([*DRIVER, *words[1:]])


def run_submit(config: SubmitConfig, progress: Progress) -> Summary:
    """Submits the command as a job, or finds it submitted already; watches it unless told not to."""
    submission = read_submission(config)
    client = connect(config.address)
    statuses = {job.submission_id: job.status.value for job in client.list_jobs() if job.submission_id}
    decision = decide(submission.name, statuses, again=config.again)
    if decision.action is Action.NOTHING:
        return _summary(client, decision.job_id, _already_done(decision.job_id), 0)
    if decision.action is Action.SUBMIT:
        sent = _send(client, submission, decision)
        progress.say(f"psreid: {sent}")
    else:
        state = statuses[decision.job_id].lower()
        progress.say(f"psreid: this job is {state} already, nothing new was submitted: {decision.job_id}")
    if not config.wait:
        return _summary(
            client, decision.job_id, f"Not waiting for {decision.job_id}. {_how_to_watch(decision.job_id)}", 0
        )
    return watch(client, decision.job_id)


def plan_submit(config: SubmitConfig) -> Plan:
    """What would be sent where; asks the cluster nothing."""
    submission = read_submission(config)
    with tempfile.TemporaryDirectory() as scratch:
        package = build_package(submission.working_dir, submission.carried, Path(scratch) / "package.zip")
    return Plan(
        {
            "cluster": find_address(config.address, os.environ),
            "job": submission.name,
            "entrypoint": submission.entrypoint,
            "files that travel because they are named": ", ".join(map(str, submission.carried)) or "none",
            "package": f"{package.num_files} files, {package.size_bytes / 2**20:.1f} MiB",
        }
    )


def read_submission(config: SubmitConfig) -> Submission:
    """Reads the command as psreid would and finds the files that it names; ConfigError if something cannot travel."""
    working_dir = Path(config.working_dir).absolute()
    if not working_dir.is_dir():
        raise ConfigError(f"--working-dir {config.working_dir} is not a folder.")
    commands = read_commands(config.words)
    carried = files_to_carry(commands, working_dir)
    return Submission(commands, working_dir, carried, job_name(commands, working_dir, carried))


def watch(client: "JobSubmissionClient", job_id: str) -> Summary:
    """Shows the job's log until it ends; Ctrl-C ends the watching only."""
    started = time.monotonic()
    try:
        job = watch_job(client, job_id, _write)
    except KeyboardInterrupt:
        headline = f"Stopped watching; the job goes on: {job_id}. {_how_to_watch(job_id)}"
        return Summary(headline, "", {"job_id": job_id}, exit_code=INTERRUPTED)
    code = exit_code_of(job)
    took = f"{time.monotonic() - started:.0f} s"
    advice = "Mend what its log says, then submit it again." if code == BAD_INPUT else "Submit it again to continue it."
    headlines: Mapping[str, str] = {
        "SUCCEEDED": f"Job {job_id} succeeded after {took}.",
        "STOPPED": f"Job {job_id} was stopped. Submit it again to continue it.",
        "FAILED": f"Job {job_id} failed with exit code {code} after {took}. {advice}",
    }
    return _summary(client, job_id, headlines[job.status.value], code)


def _send(client: "JobSubmissionClient", submission: Submission, decision: Decision) -> str:
    """Uploads and submits; a job of that id that came first is as good."""
    with tempfile.TemporaryDirectory() as scratch:
        package = build_package(submission.working_dir, submission.carried, Path(scratch) / f"{submission.name}.zip")
        try:
            client.submit_job(
                entrypoint=submission.entrypoint,
                submission_id=decision.job_id,
                runtime_env={"working_dir": str(package.path)},
                metadata={"psreid_job": submission.name, "attempt": str(decision.attempt)},
            )
        except RuntimeError as error:
            if "already exists" not in str(error):
                raise JobError(f"the cluster did not take the job: {_last_line(error)}") from None
    again = f", attempt {decision.attempt}" if decision.attempt > 1 else ""
    return f"submitted {decision.job_id}{again} ({package.num_files} files, {package.size_bytes / 2**20:.1f} MiB)"


def _summary(client: "JobSubmissionClient", job_id: str, headline: str, exit_code: int) -> Summary:
    status = client.get_job_info(job_id).status.value
    figures = {"job_id": job_id, "status": status, "exit_code": exit_code}
    return Summary(headline, client.get_address(), figures, exit_code=exit_code)


def _already_done(job_id: str) -> str:
    return f"This job has succeeded already, nothing was submitted: {job_id}. --again runs it once more."


def _how_to_watch(job_id: str) -> str:
    return f"`psreid jobs logs {job_id} --follow` watches it, `psreid jobs stop {job_id}` stops it."


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
