"""The six-task benchmark of an archive: person crops as a gallery, and for each task the queries that it can ask.

Works on every frames table with identities; tasks that the data cannot ask (no second clothes, no infrared camera, no
texts) get no queries. What is chosen depends on the rows and the seed alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from modeling.errors import DataError
from modeling.instruct_reid.instructions import SENTENCES, TASKS, Task
from modeling.instruct_reid.protocol import TASK_RULES
from modeling.metrics.reid import ReidLabels, relations
from modeling.regions import crop
from workflows.archive.wardrobe import Wardrobe, cut_upper_clothes, keyed_chance, open_wardrobe
from workflows.index.frames import decode_image
from workflows.schema import CROPS, FRAMES, QUERIES, require_table
from workflows.stages import ShardBatch
from workflows.storage import Folder

LEAST_VISIBILITY = 0.4  # of a crop, where the archive's score is the visible share
LEAST_HEIGHT_PX = 40
JPEG_QUALITY = 95
FRAME_COLUMNS = ["frame_id", "camera_id", "timestamp_s", "modality", "image", "persons"]


class CutPersons:
    """A part of the frames table -> CROPS rows: every `gap_s` seconds one picture of each track.

    Persons without identity, hardly seen or very small are dropped and counted; frames that cannot be decoded are
    quarantined.
    """

    reads: tuple[str, ...] = ()
    writes = tuple(CROPS.names)
    row_id_column = "person_id"
    rows_independent = False  # which picture of a track is kept depends on those before it

    def __init__(self, *, frames_uri: str, gap_s: float, identities_from: str = "") -> None:
        """`identities_from` keeps only identities whose name starts so, such as "test-"."""
        self._frames, self._gap_s, self._start = Folder(frames_uri), gap_s, identities_from
        self._wardrobe = open_wardrobe(frames_uri)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        part = str(batch.shard.payload["part"])
        require_table(self._frames.read_schema(part), FRAMES, source=self._frames.path(part))
        rows = []
        seen: set[tuple[str, int]] = set()
        for frame in self._frames.read_table(part, columns=FRAME_COLUMNS).to_pylist():
            chosen = [person for person in frame["persons"] if self._is_wanted(person, frame, seen, batch)]
            if not chosen:
                continue
            try:
                image = decode_image(frame["image"], what=f"frame {frame['frame_id']!r}")
            except DataError as error:
                batch.quarantine_row(frame["frame_id"], "undecodable_image", str(error))
                continue
            rows += [self._row(frame, person, image) for person in chosen]
        return batch.with_table(pa.Table.from_pylist(rows, CROPS))

    def _is_wanted(
        self, person: Mapping[str, Any], frame: Mapping[str, Any], seen: set[tuple[str, int]], batch: ShardBatch
    ) -> bool:
        """One picture of a track in each span of `gap_s`: neighbouring frames are nearly the same."""
        box, identity = person["box_xyxy_px"], person["identity"]
        if not identity or not identity.startswith(self._start):
            batch.drops["no_wanted_identity"] += 1
            return False
        if box[3] - box[1] < LEAST_HEIGHT_PX or (person["score"] is not None and person["score"] < LEAST_VISIBILITY):
            batch.drops["small_or_hidden"] += 1
            return False
        if person["track_id"] is None or frame["timestamp_s"] is None:
            return True
        moment = (f"{person['track_id']}/{identity}", int(frame["timestamp_s"] // self._gap_s))
        if moment in seen:
            batch.drops["same_moment"] += 1
            return False
        seen.add(moment)
        return True

    def _row(self, frame: Mapping[str, Any], person: Mapping[str, Any], image: Any) -> dict[str, Any]:
        pixels = crop(image, person["box_xyxy_px"])
        row = {name: frame[name] for name in ("frame_id", "camera_id", "timestamp_s", "modality")}
        row |= {name: person[name] for name in ("person_id", "identity", "clothes_id", "box_xyxy_px", "text")}
        description = self._wardrobe.describe(person["clothes_id"], person["text"], key=person["person_id"])
        return row | {"image": encode_jpeg(pixels), "description": description}


@dataclass(frozen=True)
class Asked:
    """A query before its pictures are read: numbers of rows of the crops table."""

    task: Task
    shown: int
    """The crop whose picture (or, for T2I, text) is the query."""
    wanted: int
    """The crop that the instruction is about; the shown one itself in tasks without one."""


def choose_queries(crops: pa.Table, *, per_identity: int, seed: int) -> list[Asked]:
    """Up to `per_identity` queries of each identity and task that have a match under the task's rule."""
    labels = labels_of(crops)
    has_text = np.array([bool(text) for text in crops["text"].to_pylist()])
    has_words = np.array([bool(text) for text in crops["description"].to_pylist()])
    chosen: list[Asked] = []
    for identity in sorted(set(labels.identities.tolist())):
        own = np.flatnonzero(labels.identities == identity)
        part = _rows_of(labels, own)
        for task in TASKS:
            asked = _candidates(task, part, own, has_text, has_words, keyed_chance("six-tasks", seed, identity, task))
            kept = [one for one in asked if _has_match(one, labels, part, own)]
            chosen += _spread(kept, labels)[:per_identity]
    return sorted(chosen, key=lambda one: (TASKS.index(one.task), str(labels.identities[one.shown]), one.shown))


def labels_of(table: pa.Table) -> ReidLabels:
    """Identity, camera, clothes and modality of CROPS or QUERIES rows."""
    columns = ("identity", "camera_id", "clothes_id", "modality")
    return ReidLabels(*(np.array([value or "" for value in table[name].to_pylist()], dtype=str) for name in columns))


def query_table(asked: Sequence[Asked], crops: pa.Table, pictures: Mapping[int, bytes], wardrobe: Wardrobe) -> pa.Table:
    """QUERIES rows. `pictures` holds the JPEG of every crop that is shown or wanted."""
    rows = crops.select([name for name in crops.column_names if name != "image"]).to_pylist()
    numbers: dict[tuple[Task, str], int] = {}
    return pa.Table.from_pylist([_query_row(one, rows, pictures, wardrobe, numbers) for one in asked], QUERIES)


def encode_jpeg(image: Any) -> bytes:
    """RGB pixels as JPEG."""
    ok, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert ok
    return bytes(data.tobytes())


def _candidates(
    task: Task, part: ReidLabels, own: Any, has_text: Any, has_words: Any, rng: np.random.Generator
) -> Iterator[Asked]:
    """Queries of one identity in random order, whether or not they have a match."""
    is_rgb = part.modalities == "rgb"
    for place in rng.permutation(len(own)).tolist():
        shown = int(own[place])
        is_askable = task == "VI" or (is_rgb[place] and (task != "T2I" or has_text[shown]))
        if task in ("Trad", "CC", "VI", "T2I") and is_askable:
            yield Asked(task, shown, shown)
        elif task in ("CTCC", "LI") and is_askable:
            differs = part.clothes != part.clothes[place] if task == "CTCC" else np.ones(len(own), dtype=np.bool_)
            away = is_rgb & differs & (part.cameras != part.cameras[place])
            wanted = [int(own[n]) for n in np.flatnonzero(away) if task == "CTCC" or has_words[own[n]]]
            if wanted:
                yield Asked(task, shown, wanted[int(rng.integers(len(wanted)))])


def _has_match(one: Asked, labels: ReidLabels, part: ReidLabels, own: Any) -> bool:
    query = query_labels(one, labels)
    is_match, _ = relations(TASK_RULES[one.task], query, 0, part)
    return bool(is_match[own != one.shown].any())


def _spread(asked: Sequence[Asked], labels: ReidLabels) -> list[Asked]:
    """Colour and infrared queries in turn, so that VI asks both ways."""
    by_modality = [[one for one in asked if labels.modalities[one.shown] == name] for name in ("rgb", "ir")]
    pairs = zip_longest(*by_modality)
    return [one for pair in pairs for one in pair if one is not None]


def query_labels(one: Asked, labels: ReidLabels) -> ReidLabels:
    """One query's labels: who and where of the shown crop, the clothes of the wanted one. A text has no camera."""
    shown, wanted = one.shown, one.wanted
    camera = "" if one.task == "T2I" else labels.cameras[shown]
    return ReidLabels(
        np.array([labels.identities[shown]]),
        np.array([camera]),
        np.array([labels.clothes[wanted]]),
        np.array([labels.modalities[shown]]),
    )


def _rows_of(labels: ReidLabels, rows: Any) -> ReidLabels:
    return ReidLabels(labels.identities[rows], labels.cameras[rows], labels.clothes[rows], labels.modalities[rows])


def _query_row(
    one: Asked,
    rows: Sequence[Mapping[str, Any]],
    pictures: Mapping[int, bytes],
    wardrobe: Wardrobe,
    numbers: dict[tuple[Task, str], int],
) -> dict[str, Any]:
    shown, wanted = rows[one.shown], rows[one.wanted]
    number = numbers[one.task, shown["identity"]] = numbers.get((one.task, shown["identity"]), -1) + 1
    row = {
        "query_id": f"{one.task}/{shown['identity']}/{number}", "task": one.task, "identity": shown["identity"],
        "camera_id": None if one.task == "T2I" else shown["camera_id"], "clothes_id": wanted["clothes_id"],
        "modality": shown["modality"], "frame_id": shown["frame_id"], "box_xyxy_px": shown["box_xyxy_px"],
        "image": None if one.task == "T2I" else pictures[one.shown], "text": None, "instruction": None,
        "instruction_image": None,
    }  # fmt: skip
    if one.task == "T2I":
        row |= {"text": shown["text"], "instruction": shown["text"]}
    elif one.task == "LI":
        row["instruction"] = wanted["description"]
    elif one.task == "CTCC":
        worn = decode_image(pictures[one.wanted], what=f"crop {wanted['person_id']!r}")
        found = wardrobe.pictures.get(wanted["clothes_id"] or "")
        row["instruction_image"] = encode_jpeg(cut_upper_clothes(worn) if found is None else found)
    else:
        row["instruction"] = SENTENCES[one.task][0]
    return row
