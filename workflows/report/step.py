"""`psreid report`: the matches of a search as a page, a CSV file and a COCO file.

A step like the others: its shards are the parts of the frames table that hold a shown match, and each is committed
once its pictures are rendered, so a report that was cut short continues. The page and the tables are then put together
from the committed shards; `summary.json` is written last and marks the whole as done. Runs in threads, without Ray:
`max_shown` bounds the pictures, and OpenCV and storage work outside Python's lock.
"""

import os
import time
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from workflows.ledger import Ledger, Shard, StepIdentity, make_shard_id
from workflows.lock import hold_lock
from workflows.plan.work import StageWork, StepWork
from workflows.progress import Plan, Progress, Summary
from workflows.report.assemble import PAGE_NAME, assemble
from workflows.report.config import ReportConfig
from workflows.report.inputs import ReportInputs, open_inputs
from workflows.report.render import RenderMatches
from workflows.report.selection import Selection, select
from workflows.report.words import count
from workflows.schema import SCHEMA_VERSION
from workflows.storage import Folder

CODE_VERSION = "1"  # raised when the same inputs would give another page
SUMMARY_NAME = "summary.json"
MOST_THREADS = 8
SAMPLE_ROWS = 12  # rendered to tell how long a report will take
NOT_IN_IDENTITY = {"matches", "out", "frames", "queries", "threads"}  # places and speed


def run_report(config: ReportConfig, progress: Progress) -> Summary:
    """Writes the report; continues where an earlier run stopped, and does nothing when it is complete."""
    inputs = open_inputs(config)
    out = Folder(config.out)
    ledger = Ledger.open(out, report_identity(config, inputs))
    if out.exists(SUMMARY_NAME):
        progress.say(f"report: already complete in {out.path(PAGE_NAME)}")
        return _summary(out, out.read_json(SUMMARY_NAME))
    with hold_lock(out):
        selection = select(config, inputs)
        is_inline = selection.pictures <= config.inline_matches
        render = renderer(config, inputs, out, is_inline=is_inline, copy_frames=config.copy_frames)
        render_shards(render, selection, ledger, progress)
        figures = assemble(config, inputs, selection, ledger, is_inline=is_inline)
        out.write_json(SUMMARY_NAME, figures)
    return _summary(out, figures)


def plan_report(config: ReportConfig) -> Plan:
    """What a report would hold; the time is measured on a few of its matches."""
    inputs = open_inputs(config)
    selection = select(config, inputs)
    parts = list(parts_of(selection.shown))
    is_inline = selection.pictures <= config.inline_matches
    lines: dict[str, int | float | str] = {
        "queries": len(selection.query_ids),
        "matches": selection.matches,
        "shown": selection.shown.num_rows,
        "shards": len(parts),
        "pictures": "in the page" if is_inline else "in a folder beside the page",
    }
    expected_s, work = 0.0, []
    if parts:
        sample = parts[0][1].slice(0, SAMPLE_ROWS)
        began = time.perf_counter()
        renderer(config, inputs, Folder(config.out), is_inline=True, copy_frames=False)(parts[0][0], sample)
        expected_s = (time.perf_counter() - began) / sample.num_rows * selection.shown.num_rows
        work = [StepWork("report", 1, (StageWork("RenderMatches", expected_s, workers=(1, 1)),), on_ray=False)]
    return Plan(lines, expected_s, work=work)


def report_identity(config: ReportConfig, inputs: ReportInputs) -> StepIdentity:
    return StepIdentity(
        step="report",
        config=config.model_dump(exclude=NOT_IN_IDENTITY),
        inputs={"matches": inputs.matches.digest, "frames": inputs.frames.digest, "queries": inputs.queries.digest},
        code_version=CODE_VERSION,
        schema_version=SCHEMA_VERSION,
    )


def renderer(
    config: ReportConfig, inputs: ReportInputs, out: Folder, *, is_inline: bool, copy_frames: bool
) -> RenderMatches:
    threads = config.threads or min(MOST_THREADS, os.cpu_count() or 1)
    return RenderMatches(inputs.frames.folder, out, config.picture_px, is_inline, copy_frames, threads)


def render_shards(render: RenderMatches, selection: Selection, ledger: Ledger, progress: Progress) -> None:
    """Renders and commits every shard that is not done yet."""
    parts = dict(parts_of(selection.shown))
    shards = [
        Shard(make_shard_id("report", part), {"part": part}, rows_expected=rows.num_rows)
        for part, rows in parts.items()
    ]
    remaining = ledger.remaining(shards)
    progress.start("report", total=len(shards), done=len(shards) - len(remaining))
    try:
        for shard in remaining:
            began = time.perf_counter()
            rendered = render(shard.payload["part"], parts[shard.payload["part"]])
            ledger.commit(shard, rendered, drops={}, quarantine=[], seconds=time.perf_counter() - began)
            progress.advance(rows=rendered.num_rows)
    finally:
        progress.finish()
    ledger.finish(shards)


def parts_of(shown: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """(frames part, its shown rows), in order of part name."""
    for part in sorted(pc.unique(shown["frames_part"]).to_pylist()):
        yield part, shown.filter(pc.equal(shown["frames_part"], part))


def _summary(out: Folder, figures: dict[str, int]) -> Summary:
    page = out.path(PAGE_NAME)
    found = (
        f"{count(figures['matches'], 'match', 'matches')} of {figures['queries_with_matches']} out of "
        f"{count(figures['queries'], 'query', 'queries')}"
        if figures["matches"]
        else f"no match for {count(figures['queries'], 'query', 'queries')}, and why"
    )
    return Summary(f"The report shows {found}: open {page}", page, figures)
