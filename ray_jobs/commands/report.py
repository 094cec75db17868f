"""`psreid report MATCHES OUT`: the matches of a search as a page, CSV and COCO JSON."""

import argparse

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.report.config import ReportConfig


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("matches", help="folder that `psreid search` wrote")
    parser.add_argument("out", help="folder for the report: report.html, matches.csv, matches.coco.json")
    parser.add_argument("--frames", default=None, metavar="FOLDER", help="the frames, if they were moved")
    parser.add_argument("--queries", default=None, metavar="FOLDER", help="the queries that the search kept, if moved")
    parser.add_argument("--title", default=None, help="what stands at the top of the page")
    parser.add_argument(
        "--inline-matches", dest="inline_matches", type=int, default=None, metavar="N",
        help="up to N pictures are put into the page itself (300)",
    )  # fmt: skip
    parser.add_argument(
        "--max-shown", dest="max_shown", type=int, default=None, metavar="N",
        help="matches on the page; the files hold all (50000)",
    )  # fmt: skip
    parser.add_argument(
        "--near-misses", dest="near_misses", type=int, default=None, metavar="N", help="rejects kept per query (12)"
    )
    parser.add_argument(
        "--no-frames", dest="copy_frames", action="store_const", const=False, default=None,
        help="do not copy the matched frames beside the page",
    )  # fmt: skip


def _run(config: ReportConfig, progress: Progress) -> Summary:
    from workflows.report.step import run_report

    return run_report(config, progress)


def _plan(config: ReportConfig) -> Plan:
    from workflows.report.step import plan_report

    return plan_report(config)


COMMAND = Command(
    "report", "a page, a CSV and a COCO file of what a search found", ReportConfig, _add_arguments, _run, _plan
)
