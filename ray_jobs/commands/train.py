"""`psreid train foundation FRAMES... OUT`."""

import argparse

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.train.config import FoundationConfig


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["foundation"], help="foundation: a small model, whole, from random weights")
    parser.add_argument("frames", metavar="FRAMES", nargs="+", help="frames folders with identities, masks and texts")
    parser.add_argument("out", metavar="OUT", help="local folder of the run")
    parser.add_argument("--preset", metavar="NAME", help="sizes of the model (default: tiny)")
    parser.add_argument("--steps", type=int, metavar="N", help="optimizer steps of the whole run (default: 4000)")
    parser.add_argument("--seed", type=int, metavar="N", help="decides everything left to chance (default: 0)")
    parser.add_argument("--start-from", metavar="MODEL", help="a trained model whose weights the run starts from")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: 2)")


def _run(config: FoundationConfig, progress: Progress) -> Summary:
    from workflows.train.step import run_foundation

    return run_foundation(config, progress)


def _plan(config: FoundationConfig) -> Plan:
    from workflows.train.step import plan_foundation

    return plan_foundation(config)


COMMAND = Command(
    name="train",
    help="Train a model.",
    config_class=FoundationConfig,
    add_arguments=_add_arguments,
    run=_run,
    plan=_plan,
)
