"""`psreid status OUT`: how far a step is, while it runs or after; exit code 0 whatever it finds."""

import argparse

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.config import StepConfig


class StatusConfig(StepConfig):
    """What to look at."""

    out: str
    """Output folder of a psreid command; local or s3://."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="output folder of a psreid command; local or s3://")


def _run(config: StatusConfig, progress: Progress) -> Summary:
    from workflows.status import read_status, summarize

    steps = read_status(config.out)
    return Summary(
        headline=summarize(steps),
        output=config.out,
        details=[line for step in steps for line in step.lines()],
        record={"headline": summarize(steps), "output": config.out, "steps": [step.plain() for step in steps]},
    )


def _plan(config: StatusConfig) -> Plan:
    return Plan({"reads": config.out}, expected_s=1.0)


COMMAND = Command("status", "how far a step is, while it runs or after", StatusConfig, _add_arguments, _run, _plan)
