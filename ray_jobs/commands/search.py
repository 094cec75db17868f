"""`psreid search INDEX [QUERIES] OUT`: queries from a table, or one query from flags."""

import argparse
from collections.abc import Sequence
from typing import Any

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.search.config import SearchConfig


class _OutAfterQueries(argparse.Action):
    """The third folder: INDEX QUERIES OUT. With two, INDEX OUT, the query is given by flags."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if values is not None:
            namespace.queries, namespace.out = namespace.out, values


def _box(text: str) -> tuple[float, ...]:
    """x,y,w,h in pixels."""
    parts = text.split(",")
    if len(parts) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not left,top,width,height in pixels, such as 120,80,40,95")
    return tuple(float(part) for part in parts)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", metavar="INDEX", help="folder that `psreid index` wrote")
    parser.add_argument("out", metavar="[QUERIES]", help="Parquet file or folder of queries, unless flags give one")
    parser.add_argument(
        "queries", metavar="OUT", nargs="?", action=_OutAfterQueries, help="folder for the matches and the report"
    )
    query = parser.add_argument_group("one query from flags")
    query.add_argument("--image", metavar="FILE", help="picture of the person")
    query.add_argument("--text", metavar="TEXT", help="description of the person")
    query.add_argument("--frame", metavar="FRAME_ID", help="frame of the archive that shows the person; needs --box")
    query.add_argument("--box", type=_box, metavar="X,Y,W,H", help="the person in that frame, in pixels")
    query.add_argument(
        "--task", metavar="TASK", help="with an index of an instruct-ReID model: trad, cc, ctcc, vi, t2i or li"
    )
    query.add_argument("--instruction", metavar="TEXT", help="what is asked, in other words than the task's own")
    query.add_argument("--clothes", metavar="FILE", help="picture of the clothes to look for, with --task ctcc")
    where = parser.add_argument_group("where to look, and how thoroughly")
    where.add_argument("--recall", choices=("top", "none"), help="none: judge every frame with every query")
    where.add_argument(
        "--shortlist-size", type=int, metavar="K", help="frames judged per query (default: 50, or 2 %% of the archive)"
    )
    where.add_argument("--stop-after", choices=("recall", "judge"), help="recall: rank persons; judge: no masks")
    where.add_argument("--threshold", type=float, metavar="S", help="scores above it are a match (default: 0)")
    where.add_argument(
        "--judge-by",
        choices=("psreid", "recall"),
        help="recall: by the index's encoder, which knows tasks (default for cc, ctcc and li)",
    )
    where.add_argument("--camera", dest="cameras", action="append", metavar="ID", help="only this camera; repeatable")
    where.add_argument("--since", metavar="MOMENT", help="only frames recorded from then on: 2026-11-01T08:00")
    where.add_argument("--until", metavar="MOMENT", help="only frames recorded up to then")
    where.add_argument("--since-s", type=float, metavar="S", help="only from this second of a video on")
    where.add_argument("--until-s", type=float, metavar="S", help="only up to this second of a video")
    where.add_argument("--frames", metavar="FOLDER", help="the indexed frames, if they were moved")
    how = parser.add_argument_group("model and workers")
    how.add_argument("--model", metavar="M", help="name or path of the model that judges (default: tiny)")
    how.add_argument("--attention", choices=("joint", "separated"), help="default: as the model was trained")
    how.add_argument("--judge-actors", type=int, metavar="N", help="workers that judge (default: every core)")
    how.add_argument(
        "--segment-actors", type=int, metavar="N", help="workers that draw masks (default: half the judges asked for)"
    )
    how.add_argument("--gpus-per-actor", type=float, metavar="G", help="GPUs of a worker (default: 0, on the CPU)")
    how.add_argument("--tracking-uri", metavar="URI", help="MLflow server (default: MLFLOW_TRACKING_URI)")
    how.add_argument("--no-report", dest="report", action="store_false", default=None, help="write matches only")


def _run(config: SearchConfig, progress: Progress) -> Summary:
    from workflows.search.step import run_search
    from workflows.tracking.step import track_command

    return track_command("search", config, config.out, lambda: run_search(config, progress))


def _plan(config: SearchConfig) -> Plan:
    from workflows.search.step import plan_search

    return plan_search(config)


COMMAND = Command(
    name="search",
    help="Find the queried persons in the archive and outline them.",
    config_class=SearchConfig,
    add_arguments=_add_arguments,
    run=_run,
    plan=_plan,
)
