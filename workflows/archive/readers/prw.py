"""PRW: scenes in `frames`, one MATLAB file of boxes each in `annotations`, queries in `query_info.txt`.

    frame_train.mat, frame_test.mat   img_index_train, img_index_test: names of frames without suffix
    annotations/<frame>.jpg.mat       box_new, anno_file or anno_previous: rows identity, x, y, width, height; some
                                      coordinates are negative, identity -2 is nobody known
    query_info.txt                    lines `identity x y width height frame`

Every test frame but the query's own is searched. Published results keep the query's camera; the second
setting does not.
"""

import re
from concurrent.futures import ThreadPoolExecutor

from modeling.errors import DataError
from workflows.archive.readers.dataset import (
    Box,
    Dataset,
    LabelledPerson,
    Picture,
    Question,
    Setting,
    Split,
    shared_gallery,
)
from workflows.archive.readers.source import Source, match_name

BOX_KEYS = ("box_new", "anno_file", "anno_previous")
CAMERA = re.compile(r"^c(\d)")
QUERY_LINE = "identity, x, y, width, height and frame, as in 479 100 20 50 120 c1s3_016471"
UNKNOWN = -2
READERS = 16
PUBLISHED = {
    "train pictures": 5_704,
    "test pictures": 6_112,
    "queries": 2_057,
    "query identities": 450,
}


class Prw:
    title = "PRW"
    needs = ("frames/", "annotations/", "frame_train.mat", "frame_test.mat", "query_info.txt")
    variants = ()

    def read(self, source: Source, variant: str | None) -> Dataset:
        pictures: list[Picture] = []
        splits: tuple[tuple[Split, str], ...] = (("train", "train"), ("test", "test"))
        for split, name in splits:
            listed_in = f"frame_{name}.mat"
            rows = source.mat(listed_in, f"img_index_{name}").reshape(-1)
            stems = [str(row.item() if row.dtype != object else row[0]) for row in rows]
            source.require_files([f"frames/{stem}.jpg" for stem in stems], listed_in=listed_in)
            with ThreadPoolExecutor(READERS) as pool:
                pictures += pool.map(lambda stem, split=split: _picture(source, stem, split), stems)
        test = [picture for picture in pictures if picture.split == "test"]
        return Dataset(
            pictures=pictures,
            questions=_questions(source, {picture.frame_id for picture in test}),
            galleries={"all": shared_gallery(test)},
            settings=[Setting("standard", ("all",)), Setting("other cameras", ("all",), ("same camera",))],
            published=PUBLISHED,
        )


def _picture(source: Source, stem: str, split: Split) -> Picture:
    persons = tuple(
        LabelledPerson(None if int(row[0]) == UNKNOWN else str(int(row[0])), _inside(*map(float, row[1:5])))
        for row in _boxes(source, f"annotations/{stem}.jpg.mat")
    )
    return Picture(f"frames/{stem}.jpg", _camera(source, f"{stem}.jpg"), persons, split, video=stem)


def _boxes(source: Source, name: str) -> list[list[float]]:
    problem: DataError | None = None
    for key in BOX_KEYS:
        try:
            return source.mat(name, key).reshape(-1, 5).tolist()
        except DataError as error:
            problem = problem or error
    raise problem or DataError(name)


def _questions(source: Source, searched: set[str]) -> list[Question]:
    questions = []
    for number, line in source.text_lines("query_info.txt"):
        try:
            identity, *box, stem = line.split()
            x, y, width, height = (float(value) for value in box)
        except ValueError as error:
            raise source.bad_line("query_info.txt", number, line, QUERY_LINE) from error
        camera = _camera(source, f"{stem}.jpg")
        frame_id = f"{camera}/{stem}#0"
        questions.append(
            Question(
                query_id=f"{int(identity)}-{stem}",
                identity=str(int(identity)),
                task="Trad",
                file=f"frames/{stem}.jpg",
                box_xywh_px=_inside(x, y, width, height),
                frame_id=frame_id if frame_id in searched else None,
                camera_id=camera,
            )
        )
    source.require_files([str(question.file) for question in questions], listed_in="query_info.txt")
    return questions


def _camera(source: Source, name: str) -> str:
    return f"c{match_name(CAMERA, source, f'frames/{name}', 'c1s1_000151.jpg').group(1)}"


def _inside(x: float, y: float, width: float, height: float) -> Box:
    """The box without what lies left of or above the frame."""
    left, top = max(x, 0.0), max(y, 0.0)
    return left, top, max(x + width - left, 0.0), max(y + height - top, 0.0)
