"""CUHK-PEDES: `imgs/<folder>/...` and `reid_raw.json`, a list of {split, captions, file_path, id}.

Each caption of a test picture is a query; every test picture is searched. A picture's camera is the folder it lies in.
"""

from typing import Any

from modeling.errors import DataError
from workflows.archive.readers.dataset import Dataset, LabelledPerson, Picture, Question, Setting, shared_gallery
from workflows.archive.readers.source import Source

ANNOTATIONS, OTHER_ANNOTATIONS = "reid_raw.json", "caption_all.json"
KEYS = ("split", "captions", "file_path", "id")
PUBLISHED = {
    "train pictures": 34_054,
    "train identities": 11_003,
    "val pictures": 3_078,
    "val identities": 1_000,
    "test pictures": 3_074,
    "test identities": 1_000,
    "queries": 6_156,
}


class CuhkPedes:
    title = "CUHK-PEDES"
    needs = ("imgs/",)
    variants = ()

    def read(self, source: Source, variant: str | None) -> Dataset:
        if source.has(OTHER_ANNOTATIONS) and not source.has(ANNOTATIONS):
            raise DataError(
                f"{source.uri} has {OTHER_ANNOTATIONS}, which has no splits. Ask the authors for the version "
                f"with {ANNOTATIONS} and all six folders in imgs/ (CUHK01, CUHK03, Market, cam_a, cam_b, test_query, "
                "train_query)."
            )
        source.require((ANNOTATIONS,), title=self.title)
        pictures, questions = [], []
        for number, row in enumerate(_rows(source)):
            picture = _picture(row)
            pictures.append(picture)
            if picture.split == "test":
                identity = str(picture.persons[0].identity)
                questions += [
                    Question(f"{number}-{place}", identity, "T2I", text=text.strip())
                    for place, text in enumerate(row["captions"])
                ]
        source.require_files([picture.file for picture in pictures], listed_in=ANNOTATIONS)
        return Dataset(
            pictures=pictures,
            questions=questions,
            galleries={"all": shared_gallery([picture for picture in pictures if picture.split == "test"])},
            settings=[Setting("standard", ("all",))],
            published=PUBLISHED,
        )


def _rows(source: Source) -> list[dict[str, Any]]:
    rows = source.json(ANNOTATIONS)
    path = source.folder.path(ANNOTATIONS)
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__}; a list of pictures is needed. It is another file.")
    for number, row in enumerate(rows):
        missing = [key for key in KEYS if not isinstance(row, dict) or key not in row]
        if missing:
            raise DataError(f"{path}: entry {number} has no {', '.join(missing)}. Download it again.")
        if row["split"] not in ("train", "val", "test"):
            raise DataError(f"{path}: entry {number} has split {row['split']!r}; it must be train, val or test.")
    return rows


def _picture(row: dict[str, Any]) -> Picture:
    name = str(row["file_path"])
    text = "\n".join(" ".join(caption.split()) for caption in row["captions"])
    person = LabelledPerson(str(int(row["id"])), text=text)
    return Picture(f"imgs/{name}", name.rpartition("/")[0].replace("/", "~") or "imgs", (person,), row["split"])
