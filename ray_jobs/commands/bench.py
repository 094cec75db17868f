"""`psreid bench judge | ingest | pipeline | memory`: how fast the work is beside the plain way of doing it."""

import argparse

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.bench.config import BenchConfig


def _numbers(text: str) -> tuple[int, ...]:
    """Comma-separated numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,8,64") from error


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        choices=("judge", "ingest", "pipeline", "memory"),
        help="judge: shared computation against one forward per pair; ingest: against plain PyAV; "
        "pipeline: Ray and the ledger against a bare loop; memory: peaks of driver and workers as an archive grows",
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="ingest: a video; pipeline: a frames folder; memory: an archive of psreid synth",
    )
    parser.add_argument(
        "--model", metavar="M", help="name or path of the model, for judge and pipeline (default: tiny)"
    )
    judge = parser.add_argument_group("judge")
    judge.add_argument("--queries", type=_numbers, metavar="Q,Q,...", help="numbers of queries (default: 1,8,64)")
    judge.add_argument("--targets", type=int, metavar="N", help="number of targets (default: 64)")
    judge.add_argument("--sample-pairs", type=int, metavar="P", help="pairs timed of the slow ways (default: 64)")
    judge.add_argument("--repeats", type=int, metavar="R", help="runs of each way, the fastest counts (default: 3)")
    judge.add_argument("--threads", type=int, metavar="T", help="threads on the CPU (default: torch's choice)")
    judge.add_argument("--clock", choices=("wall", "cpu"), help="cpu: processor seconds, for a busy machine")
    judge.add_argument("--device", metavar="DEVICE", help="cpu (default) or cuda")
    memory = parser.add_argument_group("memory")
    memory.add_argument("--sizes", type=_numbers, metavar="N,N", help="frames of the archives (default: 1000,20000)")
    others = parser.add_argument_group("ingest and pipeline")
    others.add_argument("--every", type=int, metavar="N", help="every N-th frame of the video (default: all)")
    others.add_argument("--least-s", type=float, metavar="S", help="least seconds of a run (default: 30; pipeline 60)")


def _run(config: BenchConfig, progress: Progress) -> Summary:
    from workflows.bench.step import run_bench

    return run_bench(config, progress)


def _plan(config: BenchConfig) -> Plan:
    from workflows.bench.step import plan_bench

    return plan_bench(config)


COMMAND = Command(
    name="bench",
    help="Time the work beside the plain way of doing it: judge, ingest, pipeline, memory.",
    config_class=BenchConfig,
    add_arguments=_add_arguments,
    run=_run,
    plan=_plan,
)
