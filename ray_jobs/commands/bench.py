"""`psreid bench WHAT`: judge, recall, shortlist, ingest, pipeline, memory, train, attention: beside the plain way."""

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
        choices=("judge", "recall", "shortlist", "ingest", "pipeline", "memory", "train", "attention"),
        help="judge: shared computation against one forward per pair; recall: exact top-k against faiss; "
        "shortlist: a search against one that judged everything; ingest: against plain PyAV; "
        "pipeline: Ray and the ledger against a bare loop; memory: peaks of driver and workers as an archive grows; "
        "train: Ray Train and DeepSpeed against a bare loop; attention: joint against separated, trained equally long",
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="ingest: a video; pipeline, train: a frames folder; shortlist: a search; memory, attention: by synth",
    )
    parser.add_argument(
        "--model", metavar="M", help="name or path of the model, for judge and pipeline (default: tiny)"
    )
    both = parser.add_argument_group("judge and recall")
    both.add_argument("--queries", type=_numbers, metavar="Q,Q,...", help="numbers of queries (default: 1,8,64)")
    both.add_argument("--repeats", type=int, metavar="R", help="runs of each way, the fastest counts (default: 3)")
    both.add_argument("--threads", type=int, metavar="T", help="threads on the CPU (default: all cores)")
    parser.add_argument("--against", metavar="SEARCH", help="shortlist: the same search with --recall none")
    recall = parser.add_argument_group("recall")
    recall.add_argument(
        "--rows", type=_numbers, metavar="N,N,...", help="numbers of embeddings (default: 1000000,10000000)"
    )
    recall.add_argument("--dim", type=int, metavar="D", help="width of an embedding (default: 512)")
    recall.add_argument(
        "--memory-gb", type=float, metavar="GB", help="for embeddings; beyond it, in blocks (default: 0.6 of the free)"
    )
    recall.add_argument("--top", type=int, metavar="K", help="rows found per query (default: 100)")
    judge = parser.add_argument_group("judge")
    judge.add_argument("--targets", type=int, metavar="N", help="number of targets (default: 64)")
    judge.add_argument("--sample-pairs", type=int, metavar="P", help="pairs timed of the slow ways (default: 64)")
    judge.add_argument("--clock", choices=("wall", "cpu"), help="cpu: processor seconds, for a busy machine")
    judge.add_argument("--device", metavar="DEVICE", help="cpu (default) or cuda")
    memory = parser.add_argument_group("memory")
    memory.add_argument("--sizes", type=_numbers, metavar="N,N", help="frames of the archives (default: 1000,20000)")
    train = parser.add_argument_group("train")
    train.add_argument("--workers", type=int, metavar="W", help="workers, one core each (default: 2)")
    train.add_argument("--zero-stage", type=int, choices=(0, 1, 2, 3), help="DeepSpeed ZeRO (default: 1)")
    train.add_argument("--steps", type=int, metavar="N", help="steps timed of each way (default: 12)")
    attention = parser.add_argument_group("attention")
    attention.add_argument("--training", metavar="FILE", help="settings of `psreid train psreid` that both ways share")
    attention.add_argument("--gallery", metavar="NAME", help="what is measured on (default: TestG100)")
    attention.add_argument("--out", metavar="OUT", help="where a killed run continues (default: nothing is kept)")
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
    help="Time the work beside the plain way: judge, recall, shortlist, ingest, pipeline, memory, train, attention.",
    config_class=BenchConfig,
    add_arguments=_add_arguments,
    run=_run,
    plan=_plan,
)
