"""What a reader gives: pictures with labelled persons, queries, galleries, and how the data set is evaluated.

Only names and annotations are held; pictures are opened by the workers. Identities are the data set's own names; a
number is written without leading zeros, so that its files agree with one another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from workflows.archive.readers.source import Source
from workflows.schema import ALL_QUERIES

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Junk = Literal["same camera", "same clothes", "other clothes"]
"""Gallery persons of the query's own identity that count neither way: of its camera, in its clothes, in others."""
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class LabelledPerson:
    """A person in a picture."""

    identity: str | None = None
    """None: nobody knows who it is."""
    box_xywh_px: Box | None = None
    """Left, top, width, height in pixels; None: the whole picture."""
    clothes_id: str | None = None
    track_id: str | None = None
    text: str | None = None
    """Descriptions of this picture, one a line."""
    segmentation: Any = None
    """As COCO writes it: polygons or run lengths; None: not known."""


@dataclass(frozen=True)
class Picture:
    """One image file that becomes a frame."""

    file: str
    """Relative to the source."""
    camera_id: str
    persons: tuple[LabelledPerson, ...]
    split: Split = "test"
    video: str | None = None
    """Second part of its frame_id; by default its file without suffix."""
    frame_index: int = 0
    """0-based, where the file is one frame of a sequence."""
    timestamp_s: float | None = None
    modality: Literal["rgb", "ir"] | None = None
    """None: the picture tells."""

    @property
    def frame_id(self) -> str:
        video = self.video or self.file.rpartition(".")[0].replace("/", "~")
        return f"{self.camera_id}/{video}#{self.frame_index}"


@dataclass(frozen=True)
class Question:
    """One query: a picture (or a box of one), words, or both."""

    query_id: str
    identity: str
    task: str
    """Trad, CC, CTCC, VI, T2I or LI."""
    file: str | None = None
    box_xywh_px: Box | None = None
    frame_id: str | None = None
    """The frame that the box lies in, where that frame is also searched."""
    camera_id: str | None = None
    clothes_id: str | None = None
    modality: Literal["rgb", "ir"] | None = None
    text: str | None = None
    instruction: str | None = None
    instruction_file: str | None = None
    """A picture of clothes."""


@dataclass(frozen=True)
class LabelledVideo:
    """A video whose frames are labelled in a MOT file."""

    file: str
    truth: str
    """The MOT file, relative to the source."""
    name: str
    """Its camera and its stem."""


@dataclass(frozen=True)
class Setting:
    """One of the ways in which a data set is evaluated."""

    name: str
    galleries: tuple[str, ...]
    """More than one: the mean over them."""
    junk: tuple[Junk, ...] = ()
    queries: Mapping[str, str] = field(default_factory=dict)
    """Columns and values that choose the queries; empty: all."""


@dataclass(frozen=True)
class Dataset:
    """A data set, read but for its pictures."""

    pictures: Sequence[Picture] = ()
    questions: Sequence[Question] = ()
    galleries: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """gallery -> query_id, or `ALL_QUERIES` -> frame_ids."""
    settings: Sequence[Setting] = ()
    videos: Sequence[LabelledVideo] = ()
    video_frames: Sequence[Picture] = ()
    """The frames that are taken of them, once that is known; `file` is the video."""
    published: Mapping[str, int] = field(default_factory=dict)
    """Counts that the complete data set has, by the names that `counts` uses."""
    unknown_identities: tuple[str, ...] = ()
    """Labels of pictures that count neither way, and are in no gallery."""
    distractor_identities: tuple[str, ...] = ()
    """Labels that stand for anybody: in the galleries, never right."""
    notes: Sequence[str] = ()

    def of_split(self, split: Split) -> list[Picture]:
        return [picture for picture in self.pictures if picture.split == split]

    @property
    def counts(self) -> dict[str, int]:
        """Pictures and identities of each split, queries and the largest shared gallery; zeros are left out."""
        nobody = {None, *self.unknown_identities, *self.distractor_identities}
        found: dict[str, int] = {}
        for split in SPLITS:
            pictures = self.of_split(split) + (list(self.video_frames) if split == "test" else [])
            identities = {person.identity for picture in pictures for person in picture.persons} - nobody
            found |= {f"{split} pictures": len(pictures), f"{split} identities": len(identities)}
        found["train and val pictures"] = found["train pictures"] + found["val pictures"]
        found["queries"] = len(self.questions)
        found["query identities"] = len({question.identity for question in self.questions})
        shared = [len(by_query[ALL_QUERIES]) for by_query in self.galleries.values() if ALL_QUERIES in by_query]
        found["gallery pictures"] = max(shared, default=0)
        return {name: count for name, count in found.items() if count}


class Reader(Protocol):
    """A format."""

    @property
    def title(self) -> str:
        """Its name for people."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Files and folders (with a closing `/`) that must lie in the source."""
        ...

    @property
    def variants(self) -> tuple[str, ...]:
        """What `variant` may be, the default first; empty: nothing to choose."""
        ...

    def read(self, source: Source, variant: str | None) -> Dataset:
        """Reads lists and annotations. DataError names the file and line that is not as the format says."""
        ...


def one_query_per_identity(pictures: Sequence[Picture]) -> list[Question]:
    """For formats without queries: each identity's largest box that does not leave its picture at the left or top."""
    best: dict[str, tuple[float, Picture, LabelledPerson]] = {}
    for picture in pictures:
        for person in picture.persons:
            if person.identity is None or person.box_xywh_px is None:
                continue
            left, top, width, height = person.box_xywh_px
            area = width * height * (1.0 if min(left, top) >= 0 else 0.1)
            if person.identity not in best or area > best[person.identity][0]:
                best[person.identity] = (area, picture, person)
    return [
        Question(
            query_id=identity,
            identity=identity,
            task="Trad",
            file=picture.file,
            box_xywh_px=person.box_xywh_px,
            frame_id=picture.frame_id,
            camera_id=picture.camera_id,
        )
        for identity, (_, picture, person) in sorted(best.items())
    ]


def shared_gallery(pictures: Sequence[Picture]) -> dict[str, list[str]]:
    """A gallery of these pictures for every query."""
    return {ALL_QUERIES: [picture.frame_id for picture in pictures]}
