"""Market-1501: `bounding_box_train`, `query`, `bounding_box_test`; names such as `0002_c1s1_000451_03.jpg`.

Identity -1 is junk (it counts neither way), 0 a distractor. `images/` of the 500k supplement, where it is there, adds
distractors to the gallery `500k`.
"""

import re

from workflows.archive.readers.dataset import Dataset, LabelledPerson, Picture, Question, Setting, Split, shared_gallery
from workflows.archive.readers.source import Source, match_name

NAME = re.compile(r"^(-?\d+)_c(\d)")
EXPECTED = "0002_c1s1_000451_03.jpg"
JUNK, DISTRACTOR = "-1", "0"
SUPPLEMENT = "images/"
PUBLISHED = {
    "train pictures": 12_936,
    "train identities": 751,
    "queries": 3_368,
    "query identities": 750,
    "gallery pictures": 15_913,
}
SUPPLEMENT_PICTURES = 500_000


class Market1501:
    title = "Market-1501"
    needs = ("bounding_box_train/", "query/", "bounding_box_test/")
    variants = ()

    def read(self, source: Source, variant: str | None) -> Dataset:
        train = [_picture(source, name, "train") for name in source.images("bounding_box_train/")]
        test = [_picture(source, name, "test") for name in source.images("bounding_box_test/")]
        gallery = [picture for picture in test if picture.persons[0].identity != JUNK]
        galleries = {"all": shared_gallery(gallery)}
        settings = [Setting("standard", ("all",), ("same camera",))]
        published = dict(PUBLISHED)
        if source.has(SUPPLEMENT):
            extra = [_distractor(name) for name in source.images(SUPPLEMENT)]
            test, galleries["500k"] = test + extra, shared_gallery(gallery + extra)
            settings.append(Setting("500k", ("500k",), ("same camera",)))
            published["gallery pictures"] += SUPPLEMENT_PICTURES
        return Dataset(
            pictures=train + test,
            questions=[_question(source, name) for name in source.images("query/")],
            galleries=galleries,
            settings=settings,
            published=published,
            unknown_identities=(JUNK,),
            distractor_identities=(DISTRACTOR,),
        )


def _picture(source: Source, name: str, split: Split) -> Picture:
    identity, camera = match_name(NAME, source, name, EXPECTED).groups()
    return Picture(name, f"c{camera}", (LabelledPerson(str(int(identity))),), split)


def _distractor(name: str) -> Picture:
    return Picture(name, "unknown", (LabelledPerson(DISTRACTOR),))


def _question(source: Source, name: str) -> Question:
    identity, camera = match_name(NAME, source, name, EXPECTED).groups()
    stem = name.rpartition("/")[2].rpartition(".")[0]
    return Question(stem, str(int(identity)), "Trad", file=name, camera_id=f"c{camera}")
