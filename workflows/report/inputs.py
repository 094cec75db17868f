"""Where a report's rows come from: the finished steps of a search, found from the folder of matches. No pages here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modeling.errors import ConfigError, DataError
from workflows.index.inputs import StepInput, open_step
from workflows.ledger import Ledger
from workflows.report.config import ReportConfig
from workflows.schema import MATCHES, require_table
from workflows.storage import Folder

STEPS_BELOW_MATCHES = ("queries", "recall", "shortlist", "judged")
"""Steps of a search that lie in folders of these names, in the order in which they ran."""

QUERY_COLUMNS = ("query_id", "text", "task", "instruction", "query_group")
ASKED = {
    "trad": "dressed as shown",
    "cc": "in other clothes",
    "ctcc": "in the clothes pictured",
    "vi": "seen in the other light, infrared or visible",
}
"""What a task asks for beside the query's picture, where it is not the query's own words."""


@dataclass(frozen=True)
class Footage:
    """What was searched of one source video (or of one folder of images, which has no clock)."""

    camera_id: str
    video_uri: str
    start_s: float | None
    end_s: float | None
    frames: int


@dataclass(frozen=True)
class ReportInputs:
    """The finished steps behind a report."""

    matches: StepInput
    frames: StepInput
    queries: StepInput
    steps: tuple[tuple[str, StepInput], ...]
    """(name, step) of every finished step of the run that can still be read, in order; for its figures."""

    def setting(self, name: str) -> Any:
        """A setting of the search, None when it has none of that name."""
        return self.matches.step.config.get(name)


def open_inputs(config: ReportConfig) -> ReportInputs:
    """Finds and checks every input. DataError or ConfigError says which folder is wrong and what to give."""
    matches = open_step(config.matches, command="search")
    for part in matches.parts[:1]:
        require_table(matches.folder.read_schema(part.name), MATCHES, source=matches.folder.path(part.name))
    frames_uri = config.frames or matches.step.config.get("frames")
    if not isinstance(frames_uri, str):
        raise ConfigError(
            f"{matches.folder.uri} does not say which frames were searched. Give their folder with --frames FOLDER."
        )
    try:
        frames = open_step(frames_uri, command="ingest")
    except DataError as error:
        raise DataError(f"{error} The frames are needed for the pictures: give their folder with --frames.") from error
    queries = open_step(config.queries or matches.folder.child("queries").uri, command="search")
    return ReportInputs(matches, frames, queries, tuple(_finished_steps(matches, frames)))


def query_order(inputs: ReportInputs) -> pa.Table:
    """`query_id` and `text` of every query, in the order in which they were given."""
    tables = [_read_known(inputs.queries.folder, part.name, QUERY_COLUMNS) for part in inputs.queries.parts]
    if not tables:
        return pa.table({"query_id": pa.array([], pa.string()), "text": pa.array([], pa.string())})
    table = pa.concat_tables(tables, promote_options="permissive")
    if "query_group" in table.column_names:
        table = table.sort_by([("query_group", "ascending")])
    words = [_words(row) for row in table.select(["text", "task", "instruction"]).to_pylist()]
    return pa.table({"query_id": table["query_id"], "text": pa.array(words, pa.string())})


def _words(row: Mapping[str, str | None]) -> str | None:
    """A query's description and what its task asks for; None where it is a picture and nothing else."""
    asked = row["instruction"] or ASKED.get((row["task"] or "").lower())
    told = [words for words in dict.fromkeys((row["text"], asked)) if words]
    return "; ".join(told) or None


def query_images(inputs: ReportInputs) -> Iterator[tuple[str, bytes]]:
    """(query_id, encoded picture) of every query that has one, a part in memory at a time."""
    for part in inputs.queries.parts:
        table = _read_known(inputs.queries.folder, part.name, ("query_id", "image"))
        for row in table.to_pylist():
            if row["image"]:
                yield row["query_id"], row["image"]


def read_footage(frames: StepInput) -> list[Footage]:
    """What was searched, by camera and video in order of name; reads three small columns of the frames."""
    found: dict[tuple[str, str], Footage] = {}
    for part in frames.parts:
        table = frames.folder.read_table(part.name, ["camera_id", "video_uri", "timestamp_s"])
        grouped = table.group_by(["camera_id", "video_uri"]).aggregate(
            [("timestamp_s", "min"), ("timestamp_s", "max"), ("camera_id", "count")]
        )
        for row in grouped.to_pylist():
            start_s, end_s = row["timestamp_s_min"], row["timestamp_s_max"]
            uri = source_of(row["video_uri"], start_s)
            here = Footage(row["camera_id"], uri, start_s, end_s, row["camera_id_count"])
            key = (here.camera_id, uri)
            found[key] = _joined(found[key], here) if key in found else here
    return [found[key] for key in sorted(found)]


def source_of(video_uri: str, timestamp_s: float | None) -> str:
    """What a lane of the timeline stands for: the video, or the folder of an image without a time."""
    return video_uri if timestamp_s is not None else video_uri.rpartition("/")[0] or video_uri


def num_pairs(inputs: ReportInputs) -> int | None:
    """Pairs of query and frame that were judged; None when the search does not tell."""
    judged = dict(inputs.steps).get("judged")
    return judged.manifest.rows + sum(judged.manifest.drops.values()) if judged else None


def _joined(first: Footage, second: Footage) -> Footage:
    starts = [time for time in (first.start_s, second.start_s) if time is not None]
    ends = [time for time in (first.end_s, second.end_s) if time is not None]
    frames = first.frames + second.frames
    return Footage(first.camera_id, first.video_uri, min(starts, default=None), max(ends, default=None), frames)


def _finished_steps(matches: StepInput, frames: StepInput) -> Iterator[tuple[str, StepInput]]:
    yield "ingest", frames
    index_uri = matches.step.config.get("index")
    places = [("index", Folder(index_uri))] if isinstance(index_uri, str) else []
    places += [(name, matches.folder.child(name)) for name in STEPS_BELOW_MATCHES]
    for name, folder in places:
        if not folder.exists("step.json"):
            continue
        ledger = Ledger.read(folder)
        manifest = ledger.manifest
        if manifest is not None:
            yield name, StepInput(folder, ledger.identity, manifest)
    yield "matches", matches


def _read_known(folder: Folder, name: str, columns: tuple[str, ...]) -> pa.Table:
    """These columns of a table, as far as it has them; what a query may lack are null columns where it has not."""
    known = folder.read_schema(name).names
    table = folder.read_table(name, [column for column in columns if column in known])
    kinds = {"image": pa.binary()} | dict.fromkeys(("text", "task", "instruction"), pa.string())
    for column, kind in kinds.items():
        if column in columns and column not in known:
            table = table.append_column(column, pa.nulls(table.num_rows, kind))
    return table.set_column(0, "query_id", pc.cast(table["query_id"], pa.string()))
