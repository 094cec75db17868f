"""`psreid tracking`: an MLflow server on this machine."""

import argparse

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.tracking.server import ServerConfig


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", metavar="DIR", help="database, files of runs and log (default: tracking)")
    parser.add_argument("--port", type=int, metavar="N", help="TCP port (default: 5000)")
    parser.add_argument(
        "--host", metavar="ADDRESS", help="address to listen on (default: 127.0.0.1, this machine only)"
    )


def _run(config: ServerConfig, progress: Progress) -> Summary:
    from workflows.tracking.server import serve_tracking

    return serve_tracking(config, progress)


def _plan(config: ServerConfig) -> Plan:
    from workflows.tracking.server import plan_tracking

    return plan_tracking(config)


COMMAND = Command(
    name="tracking",
    help="Start an MLflow server that keeps runs, figures and models.",
    config_class=ServerConfig,
    add_arguments=_add_arguments,
    run=_run,
    plan=_plan,
)
