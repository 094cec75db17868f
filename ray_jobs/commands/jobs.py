"""`psreid jobs list | logs ID | status ID | stop ID`."""

import argparse

from ray_jobs.cli import Command, Plan, Progress, Summary
from ray_jobs.submission.config import JobsConfig


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "logs", "status", "stop"), help="what to do")
    parser.add_argument("job_id", nargs="?", metavar="ID", help="the job; `psreid submit` names it when it submits")
    parser.add_argument(
        "--address", metavar="URL", help="the cluster's dashboard, http://HOST:8265 (default: RAY_API_SERVER_ADDRESS)"
    )
    parser.add_argument("--follow", action="store_true", default=None, help="logs: until the job ends")


def _run(config: JobsConfig, progress: Progress) -> Summary:
    from ray_jobs.submission.jobs import run_jobs

    return run_jobs(config, progress)


def _plan(config: JobsConfig) -> Plan:
    from ray_jobs.submission.jobs import plan_jobs

    return plan_jobs(config)


COMMAND = Command(
    name="jobs",
    help="List the jobs of a Ray cluster, show the log or the state of one, or stop it.",
    config_class=JobsConfig,
    add_arguments=_add_arguments,
    run=_run,
    plan=_plan,
)
