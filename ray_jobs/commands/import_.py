"""`psreid import FORMAT SOURCE OUT`: a published data set in, frames, queries and galleries out."""

import argparse

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.archive.readers.config import ImportConfig
from workflows.archive.readers.formats import READERS


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("format", nargs="?", metavar="FORMAT", help=", ".join(READERS))
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="folder of the data set; local or s3://")
    parser.add_argument("out", nargs="?", metavar="OUT", help="folder for the tables; local or s3://")
    variants = "; ".join(f"{name}: {', '.join(reader.variants)}" for name, reader in READERS.items() if reader.variants)
    parser.add_argument("--variant", metavar="V", help=f"which variant of the format ({variants})")
    parser.add_argument(
        "--strict", action="store_true", default=None, help="a count that is not the published one is an error"
    )
    parser.add_argument("--every", type=int, metavar="N", help="every N-th frame of a labelled video (default: all)")
    parser.add_argument("--shard-frames", type=int, metavar="N", help="pictures per shard (default: 128)")
    parser.add_argument("--jpeg-quality", type=int, metavar="Q", help="of pictures that are not JPEG yet (default: 95)")
    parser.add_argument("--max-quarantine-share", type=float, metavar="SHARE", help="fail beyond it (default: 0.01)")


def _run(config: ImportConfig, progress: Progress) -> Summary:
    from workflows.archive.readers.step import run_import

    return run_import(config, progress)


def _plan(config: ImportConfig) -> Plan:
    from workflows.archive.readers.step import plan_import

    return plan_import(config)


COMMAND = Command(
    "import", "published data sets in, frames, queries and galleries out", ImportConfig, _add_arguments, _run, _plan
)
