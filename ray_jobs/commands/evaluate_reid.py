"""`psreid evaluate reid MODEL FRAMES OUT`: IRM or IRM++ on the six tasks of an archive."""

import argparse

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.evaluate_reid.config import EvaluateReidConfig


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder of a trained IRM or IRM++, or a name of shipped weights")
    parser.add_argument("frames", metavar="FRAMES", help="frames folder with identities (`psreid synth`, `import`)")
    parser.add_argument("out", metavar="OUT", help="folder for the benchmark, the features and the scores")
    parser.add_argument(
        "--settings", nargs="+", choices=("task-free", "task-specific", "joint"), help="default: task-free and joint"
    )
    parser.add_argument("--tasks", nargs="+", metavar="T", help="of Trad CC CTCC VI T2I LI (default: all)")
    parser.add_argument(
        "--identities-from", metavar="PREFIX", help='only identities whose name starts so, such as "test-"'
    )
    parser.add_argument("--queries-per-identity", type=int, metavar="N", help="in each task, at most (default: 2)")
    parser.add_argument("--ap-top", type=int, metavar="N", help="AP of the first N candidates only (default: of all)")
    parser.add_argument("--rerank", action="store_const", const=True, help="k-reciprocal re-ranking, all in memory")
    parser.add_argument("--seed", type=int, metavar="N", help="decides which pictures become queries (default: 0)")
    parser.add_argument("--actors", type=int, metavar="N", help="workers (default: one a core)")
    parser.add_argument("--gpus-per-actor", type=float, metavar="G", help="GPUs of a worker (default: 0, on the CPU)")
    parser.add_argument(
        "--table", metavar="N", help="instead: one of the paper's tables; see psreid evaluate reid --table N --help"
    )


def _run(config: EvaluateReidConfig, progress: Progress) -> Summary:
    from workflows.evaluate_reid.step import run_evaluate_reid

    return run_evaluate_reid(config, progress)


def _plan(config: EvaluateReidConfig) -> Plan:
    from workflows.evaluate_reid.step import plan_evaluate_reid

    return plan_evaluate_reid(config)


COMMAND = Command(
    name="evaluate-reid",
    help="Score IRM or IRM++ on the six tasks of an archive (also: psreid evaluate reid).",
    config_class=EvaluateReidConfig,
    add_arguments=_add_arguments,
    run=_run,
    plan=_plan,
)
