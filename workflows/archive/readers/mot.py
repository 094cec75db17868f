"""MOT ground truth: videos with `NAME.gt.txt` beside `NAME.mp4`, and MOTChallenge folders `SEQ/gt/gt.txt`, `SEQ/img1`.

Lines are `frame, identity, x, y, width, height, flag, ...`; the first frame is 1, a flag of 0 means to ignore the
line. Identities are those of a video, so its name stands before them. There are no queries in this format: each
identity's largest box becomes one.
"""

import configparser
import re

from modeling.errors import DataError
from workflows.annotate.mot import parse_mot
from workflows.archive.readers.dataset import (
    Dataset,
    LabelledPerson,
    LabelledVideo,
    Picture,
    Setting,
    one_query_per_identity,
    shared_gallery,
)
from workflows.archive.readers.source import Source
from workflows.ingest.sources import VIDEO_SUFFIXES

TRUTH_SUFFIX, TRUTH_FILE, IMAGES = ".gt.txt", "gt/gt.txt", "img1"
NUMBER = re.compile(r"(\d+)\.[^.]+$")


class Mot:
    title = "MOT ground truth"
    needs = ()
    variants = ()

    def read(self, source: Source, variant: str | None) -> Dataset:
        videos = [
            LabelledVideo(_video_of(source, name), name, name.rpartition("/")[2].removesuffix(TRUTH_SUFFIX))
            for name in source.names
            if name.endswith(TRUTH_SUFFIX)
        ]
        sequences = [
            name.removesuffix(TRUTH_FILE).rstrip("/") for name in source.names if f"/{name}".endswith(f"/{TRUTH_FILE}")
        ]
        if not videos and not sequences:
            raise DataError(
                f"{source.uri} has neither NAME{TRUTH_SUFFIX} beside a video nor SEQUENCE/{TRUTH_FILE} with pictures "
                f"in SEQUENCE/{IMAGES}/. Detections (det.txt) have no identities: use psreid ingest --detections."
            )
        pictures = [picture for sequence in sequences for picture in _sequence(source, sequence)]
        return Dataset(
            pictures=pictures,
            videos=videos,
            questions=one_query_per_identity(pictures),
            galleries={"all": shared_gallery(pictures)} if pictures else {},
            settings=[Setting("standard", ("all",))] if pictures else [],
        )


def truth_of_frame(rows: list[list[float]], name: str) -> tuple[LabelledPerson, ...]:
    """The persons of one frame from rows (identity, x, y, width, height, flag); those to ignore are left out."""
    return tuple(
        LabelledPerson(f"{name}-{int(row[0])}", (row[1], row[2], row[3], row[4]), track_id=str(int(row[0])))
        for row in rows
        if row[5] != 0 and row[0] >= 0
    )


def _video_of(source: Source, truth: str) -> str:
    base = truth.removesuffix(TRUTH_SUFFIX)
    found = [name for name in source.names if name.rpartition(".")[0] == base and _is_video(name)]
    if not found:
        raise DataError(
            f"{source.folder.path(truth)} has no video beside it. Put {base.rpartition('/')[2]}.mp4 (or another video "
            "of that name) into the same folder."
        )
    return found[0]


def _is_video(name: str) -> bool:
    return f".{name.rpartition('.')[2].lower()}" in VIDEO_SUFFIXES


def _sequence(source: Source, sequence: str) -> list[Picture]:
    """The frames of a MOTChallenge folder; `sequence` is its name, empty where the source itself is one."""
    prefix = f"{sequence}/" if sequence else ""
    name = (sequence or source.uri.rstrip("/")).rpartition("/")[2]
    truth = parse_mot(source.folder.read_bytes(prefix + TRUTH_FILE), source=source.folder.path(prefix + TRUTH_FILE))
    rate = _frame_rate(source, f"{prefix}seqinfo.ini")
    pictures = []
    for file in source.images(f"{prefix}{IMAGES}/"):
        found = NUMBER.search(file)
        if found is None or int(found.group(1)) < 1:
            raise DataError(f"{source.folder.path(file)} is not named by its number, from 000001.jpg on. Rename it.")
        index = int(found.group(1)) - 1
        rows = truth.get(index + 1)
        persons = truth_of_frame(rows.tolist(), name) if rows is not None else ()
        time_s = index / rate if rate else None
        pictures.append(Picture(file, name, persons, video=IMAGES, frame_index=index, timestamp_s=time_s))
    return pictures


def _frame_rate(source: Source, name: str) -> float | None:
    """Frames per second of a seqinfo.ini; None where there is none."""
    if not source.has(name):
        return None
    parser = configparser.ConfigParser()
    try:
        parser.read_string(source.folder.read_bytes(name).decode("utf-8-sig"))
        rate = parser.getfloat("Sequence", "frameRate", fallback=0.0)
    except (configparser.Error, ValueError) as error:
        raise DataError(f"{source.folder.path(name)} is not a seqinfo.ini: {error}. Correct or remove it.") from error
    return rate if rate > 0 else None
