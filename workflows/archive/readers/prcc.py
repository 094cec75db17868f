"""PRCC: `rgb/train/<identity>/A_cropped_rgb001.jpg` and so for `val`; `rgb/test/{A,B,C}/<identity>/*.jpg`.

A and B are two cameras with the same clothes, C a third with others. Test: A is the gallery, one picture an identity
in each of ten draws; B asks in the same clothes, C in others. The draws take identities and pictures in order of name
with Python's random generator seeded with 3; published code takes them in the order of the disk, so its draws differ.
"""

import random
from collections import defaultdict

from modeling.errors import DataError
from workflows.archive.readers.dataset import Dataset, LabelledPerson, Picture, Question, Setting, Split
from workflows.archive.readers.source import Source
from workflows.schema import ALL_QUERIES

CAMERAS = ("A", "B", "C")
DRAWS, SEED = 10, 3
PUBLISHED = {
    "train pictures": 17_896,
    "train identities": 150,
    "val pictures": 5_002,
    "test pictures": 3_384,
    "test identities": 71,
    "queries": 7_416,
}


class Prcc:
    title = "PRCC"
    needs = ("rgb/train/", "rgb/val/", "rgb/test/A/", "rgb/test/B/", "rgb/test/C/")
    variants = ()

    def read(self, source: Source, variant: str | None) -> Dataset:
        pictures = [_train_picture(source, name, "train") for name in source.images("rgb/train/", deep=True)]
        pictures += [_train_picture(source, name, "val") for name in source.images("rgb/val/", deep=True)]
        gallery = [_test_picture(name) for name in source.images("rgb/test/A/", deep=True)]
        questions = [
            _question(name) for camera in ("B", "C") for name in source.images(f"rgb/test/{camera}/", deep=True)
        ]
        galleries = {f"draw-{number}": {ALL_QUERIES: ids} for number, ids in enumerate(_draw(gallery))}
        return Dataset(
            pictures=pictures + gallery,
            questions=questions,
            galleries=galleries,
            settings=[
                Setting("same clothes", tuple(galleries), queries={"camera_id": "B"}),
                Setting("cloth-changing", tuple(galleries), queries={"camera_id": "C"}),
            ],
            published=PUBLISHED,
            notes=[
                "The ten single-shot galleries are drawn in order of name; published code draws in order of the disk."
            ],
        )


def _clothes(identity: str, camera: str) -> str:
    return f"{identity}-{'C' if camera == 'C' else 'AB'}"


def _train_picture(source: Source, name: str, split: Split) -> Picture:
    _, _, identity, file = name.split("/")[-4:]
    if file[0] not in CAMERAS:
        raise DataError(f"{source.folder.path(name)} begins with none of A, B, C, which name the camera. Rename it.")
    return Picture(name, file[0], (LabelledPerson(identity, clothes_id=_clothes(identity, file[0])),), split)


def _test_picture(name: str) -> Picture:
    camera, identity, _ = name.split("/")[-3:]
    return Picture(name, camera, (LabelledPerson(identity, clothes_id=_clothes(identity, camera)),))


def _question(name: str) -> Question:
    camera, identity, file = name.split("/")[-3:]
    return Question(
        query_id=f"{camera}-{identity}-{file.rpartition('.')[0]}",
        identity=identity,
        task="Trad" if camera == "B" else "CC",
        file=name,
        camera_id=camera,
        clothes_id=_clothes(identity, camera),
    )


def _draw(gallery: list[Picture]) -> list[list[str]]:
    """Frame ids of each draw: one picture an identity."""
    by_identity: dict[str | None, list[str]] = defaultdict(list)
    for picture in gallery:
        by_identity[picture.persons[0].identity].append(picture.frame_id)
    generator = random.Random(SEED)
    return [[generator.choice(ids) for ids in by_identity.values()] for _ in range(DRAWS)]
