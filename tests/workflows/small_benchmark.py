"""A tiny benchmark with hand-made truth, judged by a real PS-ReID model with random weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from modeling.ps_reid.checkpoint import save_model
from modeling.regions import mask_to_rle
from tests.modeling.ps_reid.small_model import small_model
from tests.workflows import small_archive as small
from workflows.schema import GALLERIES, QUERIES
from workflows.storage import Folder

Row = dict[str, Any]
FRAMES: list[Sequence[tuple[str, int]]] = [
    [("red", 4), ("green", 24)],
    [("green", 4), ("blue", 40)],
    [("red", 44)],
    [],
    [("blue", 4), ("red", 24), ("yellow", 44)],
    [("green", 30)],
    [("yellow", 10), ("green", 40)],
    [("blue", 20)],
    [("red", 10), ("blue", 44)],
    [("white", 30)],
]
"""Who is in which frame, and where."""


def frame_rows() -> list[Row]:
    """Frames of two cameras, with identities and rectangular masks."""
    rows = [small.frame_row(f"cam-{number % 2}", number, persons) for number, persons in enumerate(FRAMES)]
    for row in rows:
        for person in row["persons"]:
            person["mask_rle"] = mask_to_rle(mask_of(person["box_xyxy_px"]))
    return rows


def mask_of(box: Sequence[float]) -> np.ndarray:
    mask = np.zeros((small.HEIGHT, small.WIDTH), dtype=bool)
    left, top, right, bottom = (int(edge) for edge in box)
    mask[top:bottom, left:right] = True
    return mask


def frame_id(number: int) -> str:
    return f"cam-{number % 2}/video#{number}"


def query(query_id: str, identity: str, *, text: str | None = None, own_frame: int | None = None) -> Row:
    own = None if own_frame is None else frame_id(own_frame)
    return small.query_row(query_id, identity, text=text, frame_id=own) | {"identity": identity}


def queries() -> list[Row]:
    return [
        query("q-red", "red", text="a man in a red coat", own_frame=0),
        query("q-green", "green", text="a woman with a black backpack"),
        query("q-blue", "blue"),
        query("q-purple", "purple", text="red"),
    ]


def galleries() -> Mapping[str, Mapping[str, Sequence[int]]]:
    """Small holds part of Large; nobody is purple, and Large holds red's own frame, which must not count."""
    return {
        "Small": {"q-red": [2, 3, 5], "q-green": [1, 5, 7, 9], "q-blue": [1, 2], "q-purple": [0, 3]},
        "Large": {
            "q-red": [0, 2, 3, 4, 5, 7, 8, 9], "q-green": list(range(10)), "q-blue": list(range(8)),
            "q-purple": [0, 3, 6],
        },
    }  # fmt: skip


def write_benchmark(
    out: Path,
    *,
    frames: Sequence[Row] | None = None,
    asked: Sequence[Row] | None = None,
    pairs: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
) -> str:
    """OUT/tables with frames, queries and galleries, in frames parts of four."""
    folder = Folder(str(out))
    if not folder.exists("tables/frames/step.json"):
        small.write_frames(out / "tables/frames", frame_rows() if frames is None else frames, rows_per_part=4)
    rows = [
        {"gallery": name, "query_id": query_id, "frame_ids": [frame_id(number) for number in numbers]}
        for name, of_query in (galleries() if pairs is None else pairs).items()
        for query_id, numbers in of_query.items()
    ]
    folder.write_table("tables/queries/queries.parquet", pa.Table.from_pylist(list(asked or queries()), QUERIES))
    folder.write_table("tables/galleries/galleries.parquet", pa.Table.from_pylist(rows, GALLERIES))
    return folder.uri


def write_model(out: Path, *, seed: int = 0) -> str:
    """A saved model with random weights."""
    save_model(small_model(seed=seed), out)
    return str(out)
