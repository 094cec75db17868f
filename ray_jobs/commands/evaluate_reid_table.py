"""`psreid evaluate reid [FRAMES] --table N`: the tables of Instruct-ReID++ beside the paper's figures."""

import argparse

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.evaluate_reid.config import ReidTableConfig


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "frames", nargs="?", metavar="FRAMES", help="frames folder with identities that the variants are scored on"
    )
    parser.add_argument(
        "--table", type=int, metavar="N", help="5 task-specific, 6 task-free, 7 joint test set, 8 ablation"
    )
    parser.add_argument("--run", action="store_const", const=True, help="train and score the table's variants first")
    parser.add_argument("--training", metavar="FILE", help="settings of `psreid train irm` that the variants share")
    parser.add_argument("--out", metavar="OUT", help="folder of the trainings; give all tables the same one")
    parser.add_argument("--results", metavar="FOLDER", help="where tables are stored (default: in the package)")
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument(
        "--identities-from", metavar="PREFIX", help='only identities whose name starts so, such as "test-"'
    )
    scoring.add_argument("--queries-per-identity", type=int, metavar="N", help="in each task, at most (default: 2)")
    scoring.add_argument("--ap-top", type=int, metavar="N", help="AP of the first N candidates only (default: of all)")
    scoring.add_argument("--actors", type=int, metavar="N", help="workers (default: one a core)")
    scoring.add_argument("--gpus-per-actor", type=float, metavar="G", help="GPUs of a worker (default: 0, on the CPU)")


def _run(config: ReidTableConfig, progress: Progress) -> Summary:
    from workflows.evaluate_reid.table import run_table

    return run_table(config, progress)


def _plan(config: ReidTableConfig) -> Plan:
    from workflows.evaluate_reid.table import plan_table

    return plan_table(config)


COMMAND = Command(
    name="evaluate-reid-table",
    help="A table of Instruct-ReID++ beside the paper's (also: psreid evaluate reid --table N).",
    config_class=ReidTableConfig,
    add_arguments=_add_arguments,
    run=_run,
    plan=_plan,
)
