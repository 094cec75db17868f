"""`psreid evaluate DATA`: accuracy of a model on a benchmark; the colour-histogram floor; the paper's tables."""

import argparse

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.evaluate.config import EvaluateConfig


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", nargs="?", metavar="DATA", help="benchmark: the OUT of `psreid synth`, or such tables of your own"
    )
    parser.add_argument("--out", metavar="OUT", help="folder of the results (default: one of DATA/evaluations)")
    parser.add_argument(
        "--model", dest="models", nargs="+", metavar="M", help="name or path (default: tiny); for --table one per seed"
    )
    parser.add_argument("--gallery", nargs="+", metavar="G", help="such as TestG50 TestG100 TestG500 (default: all)")
    parser.add_argument("--attention", choices=("joint", "separated"), help="default: as the model was trained")
    parser.add_argument("--threshold", type=float, metavar="S", help="scores above it are a match (default: 0)")
    parser.add_argument(
        "--calibrated", metavar="FOLDER", help="also write a copy of the model for which 0 is the gallery's best S"
    )
    parser.add_argument(
        "--modality", nargs="+", choices=("both", "image", "text"), help="what is left of each query (default: both)"
    )
    parser.add_argument(
        "--detections", metavar="FRAMES", help="frames folder with a detector's persons (default: the true boxes)"
    )
    ranking = parser.add_argument_group("instead of the judge").add_mutually_exclusive_group()
    ranking.add_argument(
        "--floor", dest="ranking", action="store_const", const="histogram", help="persons ranked by colour histograms"
    )
    ranking.add_argument(
        "--recall", dest="ranking", action="store_const", const="recall", help="persons ranked by the model's encoder"
    )
    masks = parser.add_argument_group("masks")
    masks.add_argument("--rule", choices=("psreid", "gres"), help="which pairs count in gIoU and cIoU")
    masks.add_argument("--min-mask-px", type=int, metavar="N", help="a smaller mask is a reject (default: 0)")
    parser.add_argument("--worst", type=int, metavar="N", help="queries on the page of the worst (default: 24)")
    tables = parser.add_argument_group("the paper's tables")
    tables.add_argument("--table", type=int, choices=(2, 3, 4, 5), help="print ours beside the paper's")
    tables.add_argument("--run", action="store_const", const=True, help="run the table's variants on DATA first")
    tables.add_argument("--training", metavar="FILE", help="training settings shared by the variants of tables 3 and 5")
    tables.add_argument("--results", metavar="FOLDER", help="where tables are stored (default: in the package)")
    how = parser.add_argument_group("workers")
    how.add_argument("--judge-actors", type=int, metavar="N", help="workers that judge (default: every core)")
    how.add_argument(
        "--segment-actors", type=int, metavar="N", help="workers that draw masks (default: half the judges asked for)"
    )
    how.add_argument("--gpus-per-actor", type=float, metavar="G", help="GPUs of a worker (default: 0, on the CPU)")


def _run(config: EvaluateConfig, progress: Progress) -> Summary:
    from workflows.evaluate.step import run_evaluate

    return run_evaluate(config, progress)


def _plan(config: EvaluateConfig) -> Plan:
    from workflows.evaluate.step import plan_evaluate

    return plan_evaluate(config)


COMMAND = Command(
    name="evaluate",
    help="Measure a model: person search, masks, and the paper's tables.",
    config_class=EvaluateConfig,
    add_arguments=_add_arguments,
    run=_run,
    plan=_plan,
)
