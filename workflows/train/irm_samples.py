"""Frames tables with identities as person crops, with all that the six tasks ask about.

Shapes: N crops of I identities in C sets of clothes.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from modeling.errors import DataError
from modeling.types import ImageHWC
from workflows.archive.wardrobe import Wardrobe, cut_upper_clothes, open_wardrobe
from workflows.ledger import Ledger
from workflows.storage import Folder
from workflows.train.irm_config import ClassesBy
from workflows.train.picture_file import PictureFile
from workflows.train.samples import CROP_HW, CROP_MARGIN, MIN_BOX_HEIGHT_PX, crop_with_room

logger = logging.getLogger(__name__)

COLUMNS = ["camera_id", "timestamp_s", "modality", "image", "persons"]


@dataclass(frozen=True)
class ReidSamples:
    """N crops."""

    crops: NDArray[np.uint8]
    """(N, 176, 88, 3) persons with a margin of a quarter on each side."""
    identity: NDArray[np.int64]
    """(N,) below `num_identities`."""
    clothes: NDArray[np.int64]
    """(N,) number of the set of clothes; equal only where it is known to be the same."""
    knows_clothes: NDArray[np.bool_]
    """(N,) whether somebody wrote down which clothes these are."""
    camera: NDArray[np.int64]
    is_infrared: NDArray[np.bool_]
    texts: Sequence[str]
    """What is seen in each picture; empty where nobody wrote it down."""
    pictures: Mapping[int, ImageHWC]
    """Shop pictures by number of clothes."""
    attributes: Mapping[int, Mapping[str, str]]
    """The wearer's attributes by number of clothes."""

    @property
    def num_identities(self) -> int:
        return int(self.identity.max()) + 1

    def classes(self, told_apart_by: ClassesBy) -> NDArray[np.int64]:
        """(N,) from 0: the identity, or the identity in one set of clothes where clothes are known."""
        if told_apart_by == "identity":
            return self.identity
        clothes = np.where(self.knows_clothes, self.clothes, -1)
        pairs = np.stack([self.identity, clothes], axis=1)
        return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def upper_clothes(self, row: int) -> ImageHWC:
        """The cut of a crop where the upper clothes are, without the margin."""
        height, width = CROP_HW
        share = CROP_MARGIN / (1 + 2 * CROP_MARGIN)
        rows, columns = round(height * share), round(width * share)
        return cut_upper_clothes(self.crops[row, rows : height - rows, columns : width - columns])

    def has_words(self, row: int) -> bool:
        """Whether the person can be described."""
        return bool(self.texts[row]) or int(self.clothes[row]) in self.attributes


def load_reid_samples(frames_uris: Sequence[str], *, gap_s: float, least_visibility: float = 0.3) -> ReidSamples:
    """Every person with an identity, one picture of a track in each span of `gap_s`.

    Identities of different archives are different people. Raises DataError when there is none.
    """
    builder = _Builder(gap_s, least_visibility)
    for number, uri in enumerate(frames_uris):
        folder = Folder(uri)
        builder.start_archive(number, open_wardrobe(uri))
        for part in sorted(Ledger.read(folder).parts(), key=lambda part: part.name):
            for row in folder.read_table(part.name, columns=COLUMNS).to_pylist():
                builder.add_frame(row)
    samples = builder.build()
    logger.info("loaded %d crops of %d identities", len(samples.crops), samples.num_identities)
    return samples


class _Builder:
    """Collects crops over archives."""

    def __init__(self, gap_s: float, least_visibility: float) -> None:
        self._gap_s, self._least_visibility = gap_s, least_visibility
        self._crops = PictureFile()
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("identity", "clothes", "known", "camera", "ir", "text")
        }
        self._numbers: dict[str, dict[str, int]] = {"identity": {}, "clothes": {}, "camera": {}}
        self._pictures: dict[int, ImageHWC] = {}
        self._attributes: dict[int, Mapping[str, str]] = {}
        self._archive, self._wardrobe = 0, Wardrobe()
        self._seen: set[tuple[str, int]] = set()

    def start_archive(self, number: int, wardrobe: Wardrobe) -> None:
        self._archive, self._wardrobe = number, wardrobe

    def add_frame(self, row: Mapping[str, Any]) -> None:
        wanted = [person for person in row["persons"] if self._is_wanted(person, row)]
        if not wanted:
            return
        decoded = cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR)
        if decoded is None:
            raise DataError(f"a frame of camera {row['camera_id']!r} cannot be decoded; ingest the archive again")
        image = np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
        for person in wanted:
            self._add_person(person, row, image)

    def build(self) -> ReidSamples:
        columns = self._columns
        if not len(self._crops):
            raise DataError("the frames hold no person with an identity to train on; give a frames table with truth")
        return ReidSamples(
            crops=self._crops.array(),
            identity=np.array(columns["identity"], dtype=np.int64),
            clothes=np.array(columns["clothes"], dtype=np.int64),
            knows_clothes=np.array(columns["known"], dtype=np.bool_),
            camera=np.array(columns["camera"], dtype=np.int64),
            is_infrared=np.array(columns["ir"], dtype=np.bool_),
            texts=columns["text"],
            pictures=self._pictures,
            attributes=self._attributes,
        )

    def _is_wanted(self, person: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
        box, score = person["box_xyxy_px"], person["score"]
        if not person["identity"] or box[3] - box[1] < MIN_BOX_HEIGHT_PX:
            return False
        if score is not None and score < self._least_visibility:
            return False
        if person["track_id"] is None or row["timestamp_s"] is None or self._gap_s <= 0:
            return True
        moment = (f"{self._archive}/{person['track_id']}/{person['identity']}", int(row["timestamp_s"] // self._gap_s))
        is_new = moment not in self._seen
        self._seen.add(moment)
        return is_new

    def _add_person(self, person: Mapping[str, Any], row: Mapping[str, Any], image: ImageHWC) -> None:
        columns, clothes_id = self._columns, person["clothes_id"]
        unknown = f"unknown-{len(self._crops)}"
        clothes = self._number("clothes", clothes_id or unknown)
        if clothes_id in self._wardrobe.pictures:
            self._pictures[clothes] = self._wardrobe.pictures[clothes_id]
        if clothes_id in self._wardrobe.attributes:
            self._attributes[clothes] = self._wardrobe.attributes[clothes_id]
        self._crops.append(crop_with_room(image, np.array(person["box_xyxy_px"], dtype=np.float32)))
        columns["identity"].append(self._number("identity", person["identity"]))
        columns["clothes"].append(clothes)
        columns["known"].append(bool(clothes_id))
        columns["camera"].append(self._number("camera", row["camera_id"]))
        columns["ir"].append(row["modality"] == "ir")
        columns["text"].append(person["text"] or "")

    def _number(self, kind: str, name: str) -> int:
        numbers = self._numbers[kind]
        return numbers.setdefault(f"{self._archive}/{name}", len(numbers))
