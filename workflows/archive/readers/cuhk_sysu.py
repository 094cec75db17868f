"""CUHK-SYSU: scenes in `Image/SSM`, annotations in MATLAB files, a gallery of its own for each query.

    annotation/Images.mat                     Img: imname, nAppear, box (idlocate: x, y, width, height, 0-based)
    annotation/pool.mat                       pool: the pictures that are searched; all others are for training
    annotation/test/train_test/Train.mat      Train: for each identity its scenes (imname, idlocate, ishard)
    annotation/test/train_test/TestG<n>.mat   TestG<n>: for each identity Query and Gallery (imname, idlocate, ishard),
                                              positives first; a distractor has no idlocate

Identities are numbered from 1 in the order of these files, those of training with a `t` in front. Persons whom no file
names have no identity. Every size of gallery has the same positives.
"""

import re
from collections.abc import Iterator
from typing import Any

from modeling.errors import DataError
from workflows.archive.readers.dataset import Box, Dataset, LabelledPerson, Picture, Question, Setting
from workflows.archive.readers.source import Source

IMAGES = "Image/SSM/"
PROTOCOLS = "annotation/test/train_test/"
PROTOCOL_NAME = re.compile(r"^(TestG\d+)\.mat$")
CAMERA = "ssm"  # hand-held pictures and film stills: cameras are not told apart
PUBLISHED = {
    "train pictures": 11_206,
    "train identities": 5_532,
    "test pictures": 6_978,
    "test identities": 2_900,
    "queries": 2_900,
}
Names = dict[tuple[str, Box], str]


class CuhkSysu:
    title = "CUHK-SYSU"
    needs = (IMAGES, "annotation/Images.mat", "annotation/pool.mat", f"{PROTOCOLS}Train.mat", f"{PROTOCOLS}TestG50.mat")
    variants = ()

    def read(self, source: Source, variant: str | None) -> Dataset:
        pool = {_text(name) for name in source.mat("annotation/pool.mat", "pool").reshape(-1)}
        protocols = {
            found.group(1): source.mat(name, found.group(1)).reshape(-1)
            for name in sorted(source.below(PROTOCOLS), key=lambda name: (len(name), name))
            if (found := PROTOCOL_NAME.match(name.removeprefix(PROTOCOLS)))
        }
        names = _train_names(source) | _test_names(protocols)
        pictures = [
            _picture(name, boxes, names, is_test=name in pool)
            for name, boxes in _scenes(source.mat("annotation/Images.mat", "Img").reshape(-1))
        ]
        source.require_files([picture.file for picture in pictures], listed_in="annotation/Images.mat")
        searched = {picture.frame_id for picture in pictures if picture.split == "test"}
        questions = [_question(row, number, searched) for number, row in enumerate(protocols["TestG50"], 1)]
        return Dataset(
            pictures=pictures,
            questions=questions,
            galleries={gallery: _galleries(rows) for gallery, rows in protocols.items()},
            settings=[Setting(gallery, (gallery,)) for gallery in protocols],
            published=PUBLISHED,
        )


def _scenes(rows: Any) -> Iterator[tuple[str, list[Box]]]:
    for row in rows:
        boxes = [_box(person[0]) for person in row[2].reshape(-1)]
        yield _text(row[0]), [box for box in boxes if box is not None and box[2] > 0 and box[3] > 0]


def _train_names(source: Source) -> Names:
    names: Names = {}
    for number, cell in enumerate(source.mat(f"{PROTOCOLS}Train.mat", "Train").reshape(-1), 1):
        for scene in cell.reshape(-1)[0][2].reshape(-1):
            names |= _name(scene, f"t{number}")
    return names


def _test_names(protocols: dict[str, Any]) -> Names:
    names: Names = {}
    for rows in protocols.values():
        for number, row in enumerate(rows, 1):
            for scene in [row["Query"].reshape(-1)[0], *row["Gallery"].reshape(-1)]:
                names |= _name(scene, str(number))
    return names


def _name(scene: Any, identity: str) -> Names:
    box = _box(scene[1])
    return {} if box is None else {(_text(scene[0]), box): identity}


def _picture(name: str, boxes: list[Box], names: Names, *, is_test: bool) -> Picture:
    persons = tuple(LabelledPerson(names.get((name, box)), box) for box in boxes)
    stem = name.rpartition(".")[0]
    return Picture(IMAGES + name, CAMERA, persons, "test" if is_test else "train", video=stem)


def _question(row: Any, number: int, searched: set[str]) -> Question:
    scene = row["Query"].reshape(-1)[0]
    box, frame_id = _box(scene[1]), _frame_id(_text(scene[0]))
    if box is None:
        raise DataError(f"query {number} of TestG50.mat has no box. The file is damaged: download it again.")
    return Question(
        query_id=f"{number:04d}",
        identity=str(number),
        task="Trad",
        file=IMAGES + _text(scene[0]),
        box_xywh_px=box,
        frame_id=frame_id if frame_id in searched else None,
        camera_id=CAMERA,
    )


def _galleries(rows: Any) -> dict[str, list[str]]:
    """Frame ids by query; published lists hold a few pictures twice, and two the query's own."""
    galleries = {}
    for number, row in enumerate(rows, 1):
        own = _frame_id(_text(row["Query"].reshape(-1)[0][0]))
        frame_ids = dict.fromkeys(_frame_id(_text(scene[0])) for scene in row["Gallery"].reshape(-1))
        galleries[f"{number:04d}"] = [frame_id for frame_id in frame_ids if frame_id != own]
    return galleries


def _frame_id(name: str) -> str:
    return f"{CAMERA}/{name.rpartition('.')[0]}#0"


def _text(value: Any) -> str:
    """A MATLAB string, however deep it is wrapped."""
    while not isinstance(value, str):
        value = value.reshape(-1)[0]
    return str(value)


def _box(value: Any) -> Box | None:
    numbers = [float(int(number)) for number in value.reshape(-1)]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None
