"""Queries and galleries of an archive, as CUHK-SYSU and the PS-ReID paper do it.

One query slice per test identity, with text. Its positives are frames in the same clothes, not of the moments around
the slice; its distractors are frames in which the identity is not even hidden. Every gallery size holds the same
positives. Frames where the identity wears other clothes or is hardly seen count neither way and are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modeling.regions import crop
from workflows.archive.synthetic.appearances import Album, Appearance
from workflows.archive.synthetic.config import SynthConfig
from workflows.archive.synthetic.itinerary import Timeline
from workflows.archive.synthetic.population import stream
from workflows.archive.synthetic.stretch import frame_id_of, frames_of_camera, make_camera
from workflows.schema import GALLERIES, QUERIES
from workflows.storage import Folder

GALLERY_SIZES = (50, 100, 500)
MOST_POSITIVES = 12
OTHERS_PER_OWN = 3  # positives of other passes for each of the query's own: there, a colour histogram finds nearly all
MOST_OWN_ALONE = 2  # of a person who passes once
MOST_INFRARED_POSITIVES = 1  # searching across the spectrum has queries of its own
MOMENT_S = 2.0  # around the slice, in its own track: nearly the same picture, so no positive
LEAST_VISIBILITY = 0.4  # of a positive
LEAST_HEIGHT_PX = 40  # of a positive
QUERY_VISIBILITY = 0.92
QUERY_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Question:
    """One test identity's query with the frames that answer it."""

    query_id: str
    slice: Appearance
    positives: Sequence[Appearance]
    infrared: Appearance | None  # another slice of the same identity, from an infrared camera


def ask(album: Album, best_height_px: float) -> list[Question]:
    """One question per identity that is seen well at least once, and at another moment again."""
    questions = []
    for identity in album.identities():
        seen = album.of(identity)
        chosen = _choose_slice([a for a in seen if a.modality == "rgb"], best_height_px)
        if chosen is None:
            continue
        positives = _positives(chosen, seen)
        if positives:
            infrared = _choose_slice(
                [a for a in seen if a.modality == "ir" and a.clothes_id == chosen.clothes_id], best_height_px
            )
            questions.append(Question(identity, chosen, positives, infrared))
    return questions


def _positives(chosen: Appearance, seen: Sequence[Appearance]) -> list[Appearance]:
    """Frames that answer the query, in order of their tickets: few of its own pass before the camera."""
    answers = [one for one in sorted(seen) if _answers(one, chosen)]
    own = [one for one in answers if one.track_id == chosen.track_id]
    others = [one for one in answers if one.track_id != chosen.track_id]
    infrared = [one for one in others if one.modality == "ir"][:MOST_INFRARED_POSITIVES]
    others = sorted([one for one in others if one.modality == "rgb"] + infrared)[:MOST_POSITIVES]
    own = own[: max(1, len(others) // OTHERS_PER_OWN) if others else MOST_OWN_ALONE]
    return sorted(own + others[: MOST_POSITIVES - len(own)])


def _answers(one: Appearance, chosen: Appearance) -> bool:
    is_same_moment = one.track_id == chosen.track_id and abs(one.timestamp_s - chosen.timestamp_s) < MOMENT_S
    is_clear = one.visibility >= LEAST_VISIBILITY and one.height_px >= LEAST_HEIGHT_PX
    return one.clothes_id == chosen.clothes_id and is_clear and not is_same_moment


def _choose_slice(candidates: Sequence[Appearance], best_height_px: float) -> Appearance | None:
    """The first by ticket among the well seen ones; failing that the largest that is not hidden."""
    clear = [a for a in candidates if a.visibility >= QUERY_VISIBILITY]
    good = [a for a in clear if a.height_px >= best_height_px]
    if good:
        return min(good)
    return max(clear, key=lambda a: (a.height_px, -a.ticket), default=None)


def queries_table(questions: Sequence[Question], frames: Folder) -> pa.Table:
    """QUERIES rows: the full query of each identity, then variants with less: image only, text only, infrared."""
    slices = [q.slice for q in questions] + [q.infrared for q in questions if q.infrared]
    crops = _cut(slices, frames)
    rows = []
    for number, question in enumerate(questions):
        one = question.slice
        rows.append(_query_row(question.query_id, one, crops[one.frame_id, one.identity], one.text, "LI"))
        if number % 3 == 0:
            rows.append(_query_row(f"{question.query_id}-image", one, crops[one.frame_id, one.identity], None, "Trad"))
        elif number % 3 == 1:
            rows.append(_query_row(f"{question.query_id}-text", one, None, one.text, "T2I"))
        if question.infrared:
            other = question.infrared
            rows.append(
                _query_row(f"{question.query_id}-infrared", other, crops[other.frame_id, other.identity], None, "VI")
            )
    rows.sort(key=lambda row: (str(row["query_id"]).count("-") > 1, row["query_id"]))
    return pa.Table.from_pylist(rows, QUERIES)


def _query_row(query_id: str, one: Appearance, image: bytes | None, text: str | None, task: str) -> dict[str, object]:
    return {
        "query_id": query_id, "image": image, "text": text, "instruction": None, "task": task, "identity": one.identity,
        "camera_id": one.camera_id, "frame_id": one.frame_id, "box_xyxy_px": list(one.box_xyxy_px),
    }  # fmt: skip


def _cut(slices: Sequence[Appearance], frames: Folder) -> Mapping[tuple[str, str], bytes]:
    """JPEG crops by (frame_id, identity), reading each part once."""
    by_part: dict[str, list[Appearance]] = {}
    for one in slices:
        by_part.setdefault(one.part, []).append(one)
    crops = {}
    for part, wanted in sorted(by_part.items()):
        ids = pa.array(sorted({one.frame_id for one in wanted}))
        table = frames.read_table(part, columns=["frame_id", "image"], filters=pc.field("frame_id").isin(ids))
        images = dict(zip(table["frame_id"].to_pylist(), table["image"].to_pylist(), strict=True))
        for one in wanted:
            picture = np.asarray(
                cv2.imdecode(np.frombuffer(images[one.frame_id], np.uint8), cv2.IMREAD_COLOR), np.uint8
            )
            _, jpeg = cv2.imencode(
                ".jpg", crop(picture, one.box_xyxy_px), [cv2.IMWRITE_JPEG_QUALITY, QUERY_JPEG_QUALITY]
            )
            crops[one.frame_id, one.identity] = jpeg.tobytes()
    return crops


def galleries_table(config: SynthConfig, questions: Sequence[Question]) -> pa.Table:
    """GALLERIES rows: for every question and size the positives, then distractors, the smaller gallery first."""
    presence = presences(config)
    totals = [frames_of_camera(config, number) for number in range(config.cameras)]
    rows = []
    for question in questions:
        positives = [a.frame_id for a in question.positives]
        present = presence.get(question.query_id, [])
        distractors = _distractors(config, question.query_id, present, totals, max(GALLERY_SIZES) - len(positives))
        for size in GALLERY_SIZES:
            ids = positives + distractors[: size - len(positives)]
            rows.append({"gallery": f"TestG{size}", "query_id": question.query_id, "frame_ids": ids})
    return pa.Table.from_pylist(rows, GALLERIES)


def presences(config: SynthConfig) -> dict[str, list[tuple[int, int, int]]]:
    """For each identity the stretches (camera, first frame, last frame) in which it is about, seen or not."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    for number in range(config.cameras):
        timeline = Timeline.of(config, number, make_camera(config, number))
        last_s = frames_of_camera(config, number) / config.fps
        for track in timeline.tracks_until(last_s):
            first = int(np.floor(track.start_s * config.fps))
            final = int(np.ceil((track.start_s + track.duration_s) * config.fps))
            name = "{}-{:04d}".format(*track.person)
            found.setdefault(name, []).append((number, first, final))
    return found


def _distractors(
    config: SynthConfig, query_id: str, present: Sequence[tuple[int, int, int]], totals: Sequence[int], count: int
) -> list[str]:
    """Up to `count` frames without the identity, in random order without repetition."""
    rng = stream("queries", config.seed, query_id)
    edges = np.cumsum([0, *totals])
    chosen: list[str] = []
    for position in _shuffled(int(edges[-1]), rng):
        camera = int(np.searchsorted(edges, position, side="right")) - 1
        index = int(position - edges[camera])
        if any(number == camera and first <= index <= final for number, first, final in present):
            continue
        chosen.append(frame_id_of(camera, index))
        if len(chosen) == count:
            break
    return chosen


def _shuffled(count: int, rng: np.random.Generator) -> Sequence[int]:
    """Enough of the numbers below `count` in random order; all of them where they are few."""
    if count <= 20_000:
        return [int(n) for n in rng.permutation(count)]
    return [int(n) for n in rng.choice(count, 20_000, replace=False, shuffle=True)]
