"""`psreid synth`: invents an archive with exact truth."""

import argparse

from ray_jobs.cli import Command
from workflows.archive.synthetic.config import SynthConfig
from workflows.progress import Plan, Progress, Summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="folder for videos and tables (local or s3://)")
    parser.add_argument("--seed", type=int, help="decides everything left to chance (default 0)")
    parser.add_argument("--identities", type=int, metavar="N", help="number of persons (default 24)")
    parser.add_argument(
        "--cameras", type=int, metavar="N", help="number of cameras; of three or more the last is infrared"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="frames over all cameras (default 640)")
    parser.add_argument("--split", choices=("train", "test", "all"), help="whose persons walk (default all)")
    parser.add_argument("--fps", type=float, metavar="F", help="frames a second (default 4)")
    parser.add_argument("--width", type=int, metavar="PX", help="of the pictures (default 640)")
    parser.add_argument("--height", type=int, metavar="PX", help="of the pictures (default 360)")
    parser.add_argument(
        "--density", type=float, metavar="N", help="persons at a time per camera, on average (default 5)"
    )
    parser.add_argument("--preview", metavar="FILE.png", help="also paint a contact sheet")


def run(config: SynthConfig, progress: Progress) -> Summary:
    from workflows.archive.synthetic.step import run_synth

    return run_synth(config, progress)


def plan(config: SynthConfig) -> Plan:
    from workflows.archive.synthetic.step import plan_synth

    return plan_synth(config)


COMMAND = Command("synth", "invent an archive with exact truth", SynthConfig, add_arguments, run, plan)
