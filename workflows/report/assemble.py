"""Puts the finished report together from its committed shards: the tables, the queries' data, and the page last."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa

from modeling.errors import DataError
from workflows.ledger import Ledger
from workflows.report import figures
from workflows.report.config import ReportConfig
from workflows.report.export import write_coco, write_csv
from workflows.report.inputs import Footage, ReportInputs, query_images, read_footage
from workflows.report.page import Embedded, PageContent, data_file, picture_uri, render_page, script_json
from workflows.report.pictures import decode, scene
from workflows.report.render import FILES_FOLDER, FRAMES_FOLDER, RENDERED
from workflows.report.selection import Selection
from workflows.report.view import Lanes, QueryHead, choose_lanes, embedded_id, query_columns, run_view
from workflows.report.words import count
from workflows.storage import JSON, Folder

PAGE_NAME = "report.html"
CSV_NAME = "matches.csv"
COCO_NAME = "matches.coco.json"
QUERY_PICTURE_PX = 420  # longer side
WRITERS = 8  # data files and query pictures written at once
NOT_PICTURES = [name for name in RENDERED.names if not name.endswith("_jpeg")]


@dataclass(frozen=True)
class Assembly:
    """The parts of one report on their way to the page."""

    config: ReportConfig
    inputs: ReportInputs
    selection: Selection
    ledger: Ledger
    is_inline: bool

    @property
    def out(self) -> Folder:
        return self.ledger.folder


def assemble(
    config: ReportConfig, inputs: ReportInputs, selection: Selection, ledger: Ledger, *, is_inline: bool
) -> dict[str, int]:
    """Writes every file of the report and returns its figures. All are rewritten, so a cut-short run leaves no mix."""
    assembly = Assembly(config, inputs, selection, ledger, is_inline)
    write_csv(inputs.matches, selection.query_ids, assembly.out, CSV_NAME)
    write_coco(inputs.matches, selection.query_ids, assembly.out, COCO_NAME)
    rendered = read_rendered(ledger)
    footage = read_footage(inputs.frames)
    lanes = choose_lanes(footage, rendered)
    pictures, references = query_pictures(assembly)
    heads = [
        QueryHead(query_id, text, references.get(query_id), tally, selection.shown_matches(number))
        for number, (query_id, text, tally) in enumerate(
            zip(selection.query_ids, selection.texts, selection.tallies, strict=True)
        )
    ]
    embedded = query_data(assembly, rendered, lanes)
    data_folder = None if is_inline else f"{FILES_FOLDER}/data"
    run = run_view(config.title, lanes, heads, data_folder=data_folder)
    content = page_content(assembly, footage, run, embedded, [*pictures, *rendered_pictures(assembly)])
    assembly.out.write_bytes(PAGE_NAME, render_page(content))
    return {
        "queries": len(heads),
        "matches": selection.matches,
        "shown": sum(head.shown for head in heads),
        "queries_with_matches": sum(head.tally.matches > 0 for head in heads),
        "pictures_missing": rendered.num_rows - rendered["scene"].drop_null().length(),
    }


def read_rendered(ledger: Ledger) -> pa.Table:
    """RENDERED of every shown row without its pictures, by query, kind and number."""
    tables = [ledger.folder.read_table(part.name, NOT_PICTURES) for part in ledger.parts()]
    empty = RENDERED.empty_table().select(NOT_PICTURES)
    order = [("query_number", "ascending"), ("is_near", "ascending"), ("number", "ascending")]
    return pa.concat_tables([empty, *tables]).sort_by(order)


def query_pictures(assembly: Assembly) -> tuple[list[Embedded], dict[str, str]]:
    """The queries' own pictures, embedded or written as files, and how the page refers to each (query_id -> reference).

    A picture that cannot be read is left out; the search has already set such a query aside.
    """
    place = {query_id: number for number, query_id in enumerate(assembly.selection.query_ids)}
    embedded: list[Embedded] = []
    references: dict[str, str] = {}
    for query_id, encoded in query_images(assembly.inputs):
        if query_id not in place:
            continue
        try:
            jpeg = scene(decode(encoded, name=f"query {query_id!r}"), QUERY_PICTURE_PX).jpeg
        except DataError:
            continue
        path = f"{FILES_FOLDER}/queries/{place[query_id]:05d}.jpg"
        if assembly.is_inline:
            embedded.append(Embedded(embedded_id(path), picture_uri(jpeg)))
            references[query_id] = f"#{embedded_id(path)}"
        else:
            assembly.out.write_bytes(path, jpeg, durable=False)
            references[query_id] = path
    return embedded, references


def query_data(assembly: Assembly, rendered: pa.Table, lanes: Lanes) -> list[Embedded]:
    """The columns of every query: returned to be embedded, or written as one file each."""
    numbers = rendered["query_number"].to_numpy()
    starts = np.searchsorted(numbers, np.arange(len(assembly.selection.query_ids) + 1))
    slices = [rendered.slice(start, end - start) for start, end in pairwise(starts)]
    columns_of = partial(
        query_columns,
        lanes=lanes,
        is_inline=assembly.is_inline,
        has_frames=assembly.config.copy_frames,
    )
    if assembly.is_inline:
        return [Embedded(f"query-{number}", script_json(columns_of(rows))) for number, rows in enumerate(slices)]

    def write(numbered: tuple[int, pa.Table]) -> None:
        number, rows = numbered
        name = f"{FILES_FOLDER}/data/{number:05d}.js"
        assembly.out.write_bytes(name, data_file(number, columns_of(rows)), durable=False)

    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(write, enumerate(slices)):
            pass
    return []


def rendered_pictures(assembly: Assembly) -> Iterator[Embedded]:
    """The pictures that committed shards hold (none where pictures are files), each once."""
    if not assembly.is_inline:
        return
    for part in assembly.ledger.parts():
        table = assembly.out.read_table(part.name, ["scene", "scene_jpeg", "zoom", "zoom_jpeg"])
        for row in table.to_pylist():
            for kind in ("scene", "zoom"):
                if row[f"{kind}_jpeg"] is not None:
                    yield Embedded(embedded_id(row[kind]), picture_uri(row[f"{kind}_jpeg"]))


def page_content(
    assembly: Assembly, footage: Sequence[Footage], run: JSON, queries: list[Embedded], pictures: list[Embedded]
) -> PageContent:
    """Everything the page says."""
    inputs, selection = assembly.inputs, assembly.selection
    cameras = len({found.camera_id for found in footage})
    subtitle = f"{count(inputs.frames.manifest.rows, 'frame')} from {count(cameras, 'camera')}"
    return PageContent(
        title=assembly.config.title,
        subtitle=subtitle,
        run=run,
        tiles=figures.tiles(inputs, footage, len(selection.query_ids), selection.matches),
        steps=figures.step_table(inputs),
        sources=figures.sources(inputs),
        score_meaning=figures.score_meaning(inputs),
        limits=figures.limits(inputs),
        empty_reason=() if selection.matches else figures.empty_reason(inputs, selection.tallies),
        csv_name=CSV_NAME,
        coco_name=COCO_NAME,
        frames_name=FRAMES_FOLDER if assembly.config.copy_frames else None,
        queries=queries,
        pictures=pictures,
        is_inline=assembly.is_inline,
    )
