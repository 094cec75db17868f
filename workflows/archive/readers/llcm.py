"""LLCM: `idx/train_vis.txt`, `idx/train_nir.txt` (lines `path label`), `idx/test_id.txt` (one line, comma-separated),
`test_vis/cam1..9` and `test_nir/cam1,2,4..9` with a folder `<identity:04d>` each.

Gallery: one random picture for each identity and camera, ten trials seeded 0 to 9 as published; the mean counts.
Queries of one modality search the galleries of the other; persons of the query's camera number are junk. Labels of the
training lists are numbers of their own, so training identities get a `t` in front.
"""

import random
import re
from typing import Literal

from modeling.errors import DataError
from workflows.archive.readers.dataset import Dataset, LabelledPerson, Picture, Question, Setting
from workflows.archive.readers.source import Source
from workflows.schema import ALL_QUERIES

CAMERAS = {"vis": (1, 2, 3, 4, 5, 6, 7, 8, 9), "nir": (1, 2, 4, 5, 6, 7, 8, 9)}
MODALITY: dict[str, Literal["rgb", "ir"]] = {"vis": "rgb", "nir": "ir"}
TRIALS = 10
CAMERA_IN_NAME = re.compile(r"_c(?:am)?0*(\d)")
PUBLISHED = {
    "train pictures": 30_921,
    "train identities": 713,
    "test pictures": 15_846,
    "test identities": 351,
    "queries": 15_846,
}


class Llcm:
    title = "LLCM"
    needs = ("idx/train_vis.txt", "idx/train_nir.txt", "idx/test_id.txt", "test_vis/", "test_nir/")
    variants = ()

    def read(self, source: Source, variant: str | None) -> Dataset:
        identities = _test_identities(source)
        train = [picture for kind in CAMERAS for picture in _train_pictures(source, kind)]
        test = {kind: _test_pictures(source, kind, identities) for kind in CAMERAS}
        galleries = {
            f"{kind}-{trial}": {ALL_QUERIES: _draw(test[kind], trial)} for kind in CAMERAS for trial in range(TRIALS)
        }
        return Dataset(
            pictures=[*train, *test["vis"], *test["nir"]],
            questions=[_question(picture) for kind in CAMERAS for picture in test[kind]],
            galleries=galleries,
            settings=[
                Setting(name, tuple(f"{gallery}-{n}" for n in range(TRIALS)), ("same camera",), {"modality": query})
                for name, gallery, query in (("VIS to IR", "nir", "rgb"), ("IR to VIS", "vis", "ir"))
            ],
            published=PUBLISHED,
        )


def _train_pictures(source: Source, kind: str) -> list[Picture]:
    listed_in = f"idx/train_{kind}.txt"
    pictures = []
    for number, line in source.text_lines(listed_in):
        name, _, label = line.rpartition(" ")
        if not label.isdigit() or not name:
            raise source.bad_line(listed_in, number, line, "a picture and its label, as in train_vis/0001/x.jpg 0")
        camera = CAMERA_IN_NAME.search(name)
        person = LabelledPerson(f"t{int(label)}")
        camera_id = f"c{camera.group(1)}" if camera else "unknown"
        pictures.append(Picture(name, camera_id, (person,), "train", modality=MODALITY[kind]))
    source.require_files([picture.file for picture in pictures], listed_in=listed_in)
    return pictures


def _test_identities(source: Source) -> list[int]:
    lines = source.text_lines("idx/test_id.txt")
    try:
        return sorted(int(text) for text in lines[0][1].split(","))
    except (ValueError, IndexError) as error:
        first = lines[0] if lines else (1, "")
        raise source.bad_line("idx/test_id.txt", *first, "identities with commas between them, as in 1,5,9") from error


def _test_pictures(source: Source, kind: str, identities: list[int]) -> list[Picture]:
    """Pictures sorted by identity, camera and name: the order in which published code draws."""
    by_folder: dict[str, list[str]] = {}
    for name in source.images(f"test_{kind}/", deep=True):
        by_folder.setdefault(name.rpartition("/")[0], []).append(name)
    pictures = [
        Picture(name, f"c{camera}", (LabelledPerson(str(identity)),), modality=MODALITY[kind])
        for identity in identities
        for camera in CAMERAS[kind]
        for name in by_folder.get(f"test_{kind}/cam{camera}/{identity:04d}", [])
    ]
    if not pictures:
        raise DataError(
            f"{source.folder.path(f'test_{kind}')} has no picture of the identities in idx/test_id.txt; folders are "
            f"named like cam1/{identities[0]:04d}. Unpack the data set completely."
        )
    return pictures


def _draw(pictures: list[Picture], trial: int) -> list[str]:
    by_place: dict[tuple[str | None, str], list[str]] = {}
    for picture in pictures:
        by_place.setdefault((picture.persons[0].identity, picture.camera_id), []).append(picture.frame_id)
    generator = random.Random(trial)
    return [generator.choice(frame_ids) for frame_ids in by_place.values()]


def _question(picture: Picture) -> Question:
    return Question(
        query_id=picture.file.rpartition(".")[0].replace("/", "~"),
        identity=str(picture.persons[0].identity),
        task="VI",
        file=picture.file,
        camera_id=picture.camera_id,
        modality=picture.modality,
        frame_id=picture.frame_id,
    )
