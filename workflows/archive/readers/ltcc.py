"""LTCC: `train`, `query`, `test`; names such as `094_1_c9_015833.png` (identity, clothes, camera, number).

Standard: persons of the query's camera are junk. Cloth-changing: those in the query's clothes are junk as well.
"""

import re

from workflows.archive.readers.dataset import Dataset, LabelledPerson, Picture, Question, Setting, Split, shared_gallery
from workflows.archive.readers.source import Source, match_name

NAME = re.compile(r"^(\d+)_(\d+)_c(\d+)")
EXPECTED = "094_1_c9_015833.png"
PUBLISHED = {
    "train pictures": 9_576,
    "train identities": 77,
    "queries": 493,
    "query identities": 75,
    "gallery pictures": 7_050,
}


class Ltcc:
    title = "LTCC"
    needs = ("train/", "query/", "test/")
    variants = ()

    def read(self, source: Source, variant: str | None) -> Dataset:
        train = [_picture(source, name, "train") for name in source.images("train/")]
        test = [_picture(source, name, "test") for name in source.images("test/")]
        return Dataset(
            pictures=train + test,
            questions=[_question(source, name) for name in source.images("query/")],
            galleries={"all": shared_gallery(test)},
            settings=[
                Setting("standard", ("all",), ("same camera",)),
                Setting("cloth-changing", ("all",), ("same camera", "same clothes")),
            ],
            published=PUBLISHED,
        )


def _parts(source: Source, name: str) -> tuple[str, str, str]:
    """(identity, clothes, camera); the clothes are those of this identity."""
    identity, clothes, camera = match_name(NAME, source, name, EXPECTED).groups()
    return str(int(identity)), f"{int(identity)}-{int(clothes)}", f"c{int(camera)}"


def _picture(source: Source, name: str, split: Split) -> Picture:
    identity, clothes, camera = _parts(source, name)
    return Picture(name, camera, (LabelledPerson(identity, clothes_id=clothes),), split)


def _question(source: Source, name: str) -> Question:
    identity, clothes, camera = _parts(source, name)
    stem = name.rpartition("/")[2].rpartition(".")[0]
    return Question(stem, identity, "CC", file=name, camera_id=camera, clothes_id=clothes)
