"""VC-Clothes: `train`, `query`, `gallery`; names such as `0009-01-01-05.jpg` (identity, camera, clothes, number).

Evaluated on all cameras, on 2 and 3 (same clothes) and on 3 and 4 (other clothes); persons of the query's camera are
junk.
"""

import re

from workflows.archive.readers.dataset import Dataset, LabelledPerson, Picture, Question, Setting, Split, shared_gallery
from workflows.archive.readers.source import Source, match_name
from workflows.schema import ALL_QUERIES

NAME = re.compile(r"^(\d+)-(\d+)-(\d+)-(\d+)")
EXPECTED = "0009-01-01-05.jpg"
SAME_CLOTHES, OTHER_CLOTHES = ("c2", "c3"), ("c3", "c4")
PUBLISHED = {
    "train pictures": 9_449,
    "train identities": 256,
    "queries": 1_020,
    "query identities": 256,
    "gallery pictures": 8_591,
}


class VcClothes:
    title = "VC-Clothes"
    needs = ("train/", "query/", "gallery/")
    variants = ()

    def read(self, source: Source, variant: str | None) -> Dataset:
        train = [_picture(source, name, "train") for name in source.images("train/")]
        gallery = [_picture(source, name, "test") for name in source.images("gallery/")]
        questions = [_question(source, name) for name in source.images("query/")]
        galleries: dict[str, dict[str, list[str]]] = {"all": shared_gallery(gallery)}
        for name, cameras in (("same clothes", SAME_CLOTHES), ("other clothes", OTHER_CLOTHES)):
            frame_ids = shared_gallery([picture for picture in gallery if picture.camera_id in cameras])[ALL_QUERIES]
            galleries[name] = {q.query_id: frame_ids for q in questions if q.camera_id in cameras}
        return Dataset(
            pictures=train + gallery,
            questions=questions,
            galleries=galleries,
            settings=[Setting(name, (name,), ("same camera",)) for name in galleries],
            published=PUBLISHED,
        )


def _parts(source: Source, name: str) -> tuple[str, str, str]:
    identity, camera, clothes, _ = match_name(NAME, source, name, EXPECTED).groups()
    return str(int(identity)), f"{int(identity)}-{int(clothes)}", f"c{int(camera)}"


def _picture(source: Source, name: str, split: Split) -> Picture:
    identity, clothes, camera = _parts(source, name)
    return Picture(name, camera, (LabelledPerson(identity, clothes_id=clothes),), split)


def _question(source: Source, name: str) -> Question:
    identity, clothes, camera = _parts(source, name)
    stem = name.rpartition("/")[2].rpartition(".")[0]
    return Question(stem, identity, "CC", file=name, camera_id=camera, clothes_id=clothes)
