"""`psreid index FRAMES OUT`."""

import argparse

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.index.config import IndexConfig


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("frames", metavar="FRAMES", help="folder of frames that `psreid ingest` wrote")
    parser.add_argument("out", metavar="OUT", help="folder for the index")
    parser.add_argument("--model", metavar="M", help="name or path of the model that embeds persons (default: tiny)")
    parser.add_argument("--actors", type=int, metavar="N", help="workers (default: one a core)")
    parser.add_argument("--gpus-per-actor", type=float, metavar="G", help="GPUs of a worker (default: 0, on the CPU)")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow server (default: MLFLOW_TRACKING_URI)")


def _run(config: IndexConfig, progress: Progress) -> Summary:
    from workflows.index.step import run_index
    from workflows.tracking.step import track_command

    return track_command("index", config, config.out, lambda: run_index(config, progress))


def _plan(config: IndexConfig) -> Plan:
    from workflows.index.estimate import plan_index

    return plan_index(config)


COMMAND = Command(
    name="index",
    help="Embed every person of the archive once, for searching.",
    config_class=IndexConfig,
    add_arguments=_add_arguments,
    run=_run,
    plan=_plan,
)
