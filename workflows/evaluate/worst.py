"""A page of the queries that went worst: what was asked, the first frames, and where the right ones ranked.

One static file without scripts; every text is escaped by the template. Knows nothing of models.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import numpy as np
import pyarrow.compute as pc
from markupsafe import Markup

from modeling.errors import DataError
from workflows.evaluate.outcomes import Outcome, QueryPairs
from workflows.index.frames import read_frames
from workflows.index.inputs import StepInput
from workflows.ledger import Ledger
from workflows.report.page import picture_uri
from workflows.report.pictures import decode, scene

SHOWN_FRAMES = 5
PICTURE_PX = 480  # longer side of a frame
QUERY_PX = 200
MOST_RANKS = 12  # listed of a query's positives

Box = Sequence[float]


@dataclass(frozen=True)
class WorstQuery:
    """A query to show, with its pairs in the gallery."""

    outcome: Outcome
    question_id: str
    row: Mapping[str, Any]
    """Its QUERIES row."""
    pairs: QueryPairs

    @property
    def places(self) -> list[int]:
        """Ranks of the pairs to show, from 0: the first ones, and the first right one if it is not among them."""
        order = self.pairs.order()
        first_right = np.flatnonzero(self.pairs.is_present[order])[:1].tolist()
        shown = list(range(min(SHOWN_FRAMES, len(order))))
        return shown + [place for place in first_right if place >= SHOWN_FRAMES]

    @property
    def frame_ids(self) -> list[str]:
        """The frames to show, in order of `places`."""
        order = self.pairs.order()
        return [self.pairs.frame_ids[order[place]] for place in self.places]


def worst_page(
    queries: Sequence[WorstQuery],
    *,
    title: str,
    subtitle: str,
    shown: StepInput,
    pairs: StepInput,
    measured: StepInput,
    part_of: Mapping[str, str],
) -> bytes:
    """The page as UTF-8; pictures are read a part at a time, only those shown."""
    keys = {(query.question_id, frame_id) for query in queries for frame_id in query.frame_ids}
    pictures = dict(_pictures(shown, part_of, {frame_id for _, frame_id in keys}))
    boxes, true_boxes = _boxes(measured, keys, "box_xyxy_px"), _boxes(pairs, keys, "true_box_xyxy_px")
    page = {
        "title": title,
        "subtitle": subtitle,
        "queries": [_query_view(query, pictures, boxes, true_boxes) for query in queries],
    }
    template = jinja2.Environment(autoescape=True).from_string(_asset("worst.html"))
    return template.render(page=page, style=Markup(_asset("worst.css"))).encode()


def _query_view(
    query: WorstQuery,
    pictures: Mapping[str, Mapping[str, Any]],
    boxes: Mapping[tuple[str, str], Box],
    true_boxes: Mapping[tuple[str, str], Box],
) -> dict[str, Any]:
    outcome, row = query.outcome, query.row
    cards = [
        _card(query, place, pictures.get(frame_id, {}), boxes, true_boxes)
        for place, frame_id in zip(query.places, query.frame_ids, strict=True)
    ]
    first = "nowhere" if outcome.first_rank is None else f"at place {outcome.first_rank}"
    return {
        "name": query.question_id,
        "verdict": f"AP {outcome.average_precision:.3f}; the first right frame is {first} of {outcome.num_frames}",
        "text": row["text"] if outcome.modality != "image" else None,
        "picture": _query_picture(row) if outcome.modality != "text" else None,
        "ranks": _ranks(query.pairs),
        "cards": cards,
    }


def _card(
    query: WorstQuery,
    place: int,
    picture: Mapping[str, Any],
    boxes: Mapping[tuple[str, str], Box],
    true_boxes: Mapping[tuple[str, str], Box],
) -> dict[str, Any]:
    number = query.pairs.order()[place]
    frame_id = query.pairs.frame_ids[number]
    key = (query.question_id, frame_id)
    is_present = bool(query.pairs.is_present[number])
    return {
        **picture,
        "rank": place + 1,
        "is_extra": place >= SHOWN_FRAMES,
        "frame_id": frame_id,
        "score": f"{query.pairs.scores[number]:.2f}",
        "is_present": is_present,
        "is_accepted": bool(query.pairs.is_accepted[number]),
        "box": _xywh(boxes.get(key)),
        "true_box": _xywh(true_boxes.get(key)),
        "label": f"Frame {frame_id}, {'right' if is_present else 'wrong'}, place {place + 1}",
    }


def _ranks(pairs: QueryPairs) -> str:
    """Where every right frame came in."""
    ranks = (np.flatnonzero(pairs.is_present[pairs.order()]) + 1).tolist()
    more = f" and {len(ranks) - MOST_RANKS} more" if len(ranks) > MOST_RANKS else ""
    return (
        f"Right frames at {', '.join(map(str, ranks[:MOST_RANKS]))}{more}." if ranks else "No right frame was judged."
    )


def _query_picture(row: Mapping[str, Any]) -> Markup | None:
    if not row["image"]:
        return None
    try:
        return picture_uri(scene(decode(row["image"], name=f"query {row['query_id']!r}"), QUERY_PX).jpeg)
    except DataError:
        return None


def _pictures(
    shown: StepInput, part_of: Mapping[str, str], frame_ids: set[str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(frame_id, its picture and its size in pixels of the frame); frames that cannot be decoded are left out."""
    by_part: dict[str, list[str]] = {}
    for frame_id in sorted(frame_ids):
        by_part.setdefault(part_of[frame_id], []).append(frame_id)
    for part, ids in sorted(by_part.items()):
        for table in read_frames(shown.folder, part, frame_ids=ids):
            for frame in table.select(["frame_id", "image", "width", "height"]).to_pylist():
                try:
                    jpeg = scene(decode(frame["image"], name=f"frame {frame['frame_id']!r}"), PICTURE_PX).jpeg
                except DataError:
                    continue
                size = {"width": frame["width"], "height": frame["height"]}
                yield frame["frame_id"], {"picture": picture_uri(jpeg), **size}


def _boxes(step: StepInput, keys: set[tuple[str, str]], column: str) -> dict[tuple[str, str], Box]:
    """(question_id, frame_id) -> a box, of the pairs shown."""
    condition = pc.field("query_id").isin(sorted({question_id for question_id, _ in keys}))
    table = Ledger.read(step.folder).read_table(["query_id", "frame_id", column], condition)
    return {
        (row["query_id"], row["frame_id"]): row[column]
        for row in table.to_pylist()
        if (row["query_id"], row["frame_id"]) in keys and row[column] is not None
    }


def _xywh(box: Box | None) -> list[float] | None:
    if box is None:
        return None
    left, top, right, bottom = box
    return [round(edge, 1) for edge in (left, top, max(0.0, right - left), max(0.0, bottom - top))]


def _asset(name: str) -> str:
    return resources.files("workflows.evaluate").joinpath(name).read_text(encoding="utf-8")
