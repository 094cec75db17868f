"""`psreid ingest SOURCE... OUT`: videos and images in, frames with persons out."""

import argparse
from collections.abc import Sequence
from typing import Any

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.ingest.config import IngestConfig


class _SourcesThenOut(argparse.Action):
    """Sets `sources` and `out` from one list of paths: the last is OUT."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        paths = list(values or ())
        namespace.out = paths[-1] if paths else None
        namespace.sources = paths[:-1] or None


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="*",
        action=_SourcesThenOut,
        default=None,
        metavar="SOURCE... OUT",
        help="videos, images, folders or globs, then the folder for the frames; local or s3://",
    )
    sampling = parser.add_argument_group("which frames")
    sampling.add_argument("--every", type=int, metavar="N", help="every N-th frame of a video (default: all)")
    sampling.add_argument("--fps", type=float, metavar="F", help="F frames per second of a video's time")
    sampling.add_argument(
        "--shard-frames", type=int, metavar="N", help="frames per shard, the unit of work (default 64)"
    )
    sampling.add_argument("--jpeg-quality", type=int, metavar="Q", help="of stored frames, 1 to 100 (default 95)")
    sampling.add_argument(
        "--ir", dest="ir_cameras", nargs="+", metavar="CAMERA", help="infrared cameras (else: frames without colour)"
    )
    clock = parser.add_argument_group("when it was recorded, and archives that grow")
    clock.add_argument(
        "--start-times", metavar="RULE|FILE",
        help="auto (default: from the file name, else the container), name, container, none, or CSV: file,start",
    )  # fmt: skip
    clock.add_argument("--time-zone", metavar="ZONE", help="of times without an offset, as Europe/Berlin (default UTC)")
    clock.add_argument(
        "--changed", choices=("refuse", "keep"), help="a source file that is not what it was: stop (default), or go on"
    )
    persons = parser.add_argument_group("persons")
    persons.add_argument(
        "--detector",
        dest="detector.name",
        metavar="NAME",
        help="hog (default, no weights), none, or an object-detection checkpoint of transformers (folder or hub id)",
    )
    persons.add_argument(
        "--detections", dest="detector.detections", metavar="PATH", help="MOT file or folder, instead of a detector"
    )
    persons.add_argument(
        "--device", dest="detector.device", metavar="DEVICE", help="of a checkpoint: cpu (default), cuda"
    )
    persons.add_argument(
        "--min-score", type=float, metavar="S", help="on the detector's own scale (default 0.5; 0.6 for hog)"
    )
    persons.add_argument("--min-height", type=float, metavar="PX", help="least height of a person (default 75)")
    persons.add_argument("--min-width", type=float, metavar="PX", help="least width of a person (default 25)")
    persons.add_argument("--nms-iou", type=float, metavar="IOU", help="overlap with a surer person (default 0.4)")
    parser.add_argument("--max-quarantine-share", type=float, metavar="SHARE", help="fail beyond it (default 0.25)")


def _run(config: IngestConfig, progress: Progress) -> Summary:
    from workflows.ingest.step import run_ingest

    return run_ingest(config, progress)


def _plan(config: IngestConfig) -> Plan:
    from workflows.ingest.estimate import plan_ingest

    return plan_ingest(config)


COMMAND = Command("ingest", "videos and images in, frames with persons out", IngestConfig, _add_arguments, _run, _plan)
