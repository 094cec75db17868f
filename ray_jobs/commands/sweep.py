"""`psreid sweep --config FILE`: many trainings of one kind, compared."""

import argparse

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.sweep.config import SweepConfig


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", nargs="?", help="folder of the sweep, unless the file names it")
    parser.add_argument("--search", choices=("grid", "random", "optuna"), help="how points are chosen (default: grid)")
    parser.add_argument("--trials", type=int, metavar="N", help="trials, for random and optuna; more continue a sweep")
    parser.add_argument("--concurrent", type=int, metavar="N", help="trials at once (default: what the cluster holds)")
    parser.add_argument(
        "--retry-failed", action="store_const", const=True, default=None, help="run trials that failed once more"
    )
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow server (default: MLFLOW_TRACKING_URI)")


def _run(config: SweepConfig, progress: Progress) -> Summary:
    from workflows.sweep.step import run_sweep

    return run_sweep(config, progress)


def _plan(config: SweepConfig) -> Plan:
    from workflows.sweep.step import plan_sweep

    return plan_sweep(config)


COMMAND = Command(
    name="sweep",
    help="Train with many settings, stop the poor ones early, and say which are best.",
    config_class=SweepConfig,
    add_arguments=_add_arguments,
    run=_run,
    plan=_plan,
)
