"""A frames table with identities as training samples, and the identity-balanced sampler over it.

Deterministic: what step k draws depends on the seed and k alone, so a run resumes in the middle of an epoch.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from modeling.backbones.sam import SamConfig
from modeling.errors import DataError
from modeling.ps_reid.config import SegmentationConfig
from modeling.ps_reid.windows import Window
from modeling.regions import crop, rle_to_mask
from workflows.train.picture_file import PictureFile

logger = logging.getLogger(__name__)

CROP_MARGIN = 0.25
"""How far a stored crop reaches beyond the truth box, as a share of its sides: room for jittered windows."""
CROP_HW = (176, 88)
WINDOW_ROOM = 1.25
"""Side of a stored window in the sides of what SAM is shown of it: room for windows of jittered boxes."""
WIDE_PX = 320
"""Longest side of a stored frame where SAM sees windows only: what false alarms are cut from."""
MIN_BOX_HEIGHT_PX = 24
CONTRAST_QUERIES_SHARE = 0.4
"""Queries per identity in the batch of crops: a query costs a pass through the language model."""


@dataclass(frozen=True)
class Samples:
    """F frames with N persons of I identities."""

    scenes: NDArray[np.uint8]
    """(F, h, w, 3) frames at the judge's scene size."""
    wide: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
    """(F, h, w, 3) frames at SAM's input scale, or `WIDE_PX` where SAM sees windows; a list where sizes differ."""
    crops: NDArray[np.uint8]
    """(N, 176, 88, 3) persons with a margin of a quarter on each side."""
    boxes: NDArray[np.float32]
    """(N, 4) xyxy as shares of the frame's sides."""
    frame: NDArray[np.int32]
    """(N,) number of the frame."""
    identity: NDArray[np.int32]
    camera: NDArray[np.int32]
    """(N,) number of the camera that saw the person."""
    texts: Sequence[str]
    masks: Sequence[NDArray[np.uint8]]
    """(h, w) masks at the scale of SAM's low-resolution output, packed to bits along the width; none with windows."""
    windows: NDArray[np.uint8]
    """(N, s, s, 4) a square around each person, RGB and the share of the pixel that is person in 255ths; none without
    zoom."""
    squares: NDArray[np.float32]
    """(N, 4) what each of those squares shows of the frame, xyxy as shares of its sides, also beyond it."""

    def persons_of_frame(self) -> list[NDArray[np.int32]]:
        """The persons of each frame."""
        order = np.argsort(self.frame, kind="stable").astype(np.int32)
        return np.split(order, np.searchsorted(self.frame[order], np.arange(1, len(self.scenes))))


def load_samples(
    tables: Iterable[pa.Table],
    *,
    scene_hw: tuple[int, int],
    segmentation: SegmentationConfig,
    identities: frozenset[str] | None,
) -> Samples:
    """Decodes and scales every frame once. `identities` limits the persons kept; None keeps all that have one.

    Tables hold image, persons, camera_id and archive (a number that tells equal names of several archives apart).

    Raises DataError when no person has an identity.
    """
    pictures = {name: PictureFile() for name in ("scenes", "wide", "crops", "windows")}
    columns: dict[str, Any] = {name: [] for name in Samples.__dataclass_fields__} | pictures
    numbers: dict[str, int] = {}
    cameras: dict[str, int] = {}
    for table in tables:
        for row in table.to_pylist():
            image = cv2.cvtColor(
                cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
            )
            add_frame(columns, numbers, cameras, row, image, scene_hw, segmentation, identities)
    if not len(pictures["crops"]):
        raise DataError("the frames hold no person with an identity to train on; give a frames table with truth")
    logger.info(
        "loaded %d frames, %d persons, %d identities", len(columns["scenes"]), len(columns["crops"]), len(numbers)
    )
    return Samples(
        scenes=pictures["scenes"].array(),
        wide=pictures["wide"].array(),
        crops=pictures["crops"].array(),
        boxes=np.array(columns["boxes"], dtype=np.float32),
        frame=np.array(columns["frame"], dtype=np.int32),
        identity=np.array(columns["identity"], dtype=np.int32),
        camera=np.array(columns["camera"], dtype=np.int32),
        texts=columns["texts"],
        masks=columns["masks"],
        windows=pictures["windows"].array() if len(pictures["windows"]) else no_windows(),
        squares=np.array(columns["squares"], dtype=np.float32).reshape(-1, 4),
    )


def no_windows() -> NDArray[np.uint8]:
    """What samples hold where SAM sees whole frames."""
    return np.zeros((0, 1, 1, 4), dtype=np.uint8)


def mask_stride(sam: SamConfig) -> int:
    """Input pixels per pixel of SAM's low-resolution mask, which has four times the patch grid's side."""
    return sam.patch_size // 4


def is_usable(person: Mapping[str, Any]) -> bool:
    """Whether a person of a frames row can be learned from: it has an identity, a mask, and height enough."""
    box = person["box_xyxy_px"]
    return person["identity"] is not None and person["mask_rle"] is not None and box[3] - box[1] >= MIN_BOX_HEIGHT_PX


def add_frame(
    columns: Mapping[str, Any],
    numbers: dict[str, int],
    cameras: dict[str, int],
    row: dict,
    image: NDArray[np.uint8],
    scene_hw: tuple[int, int],
    segmentation: SegmentationConfig,
    identities: frozenset[str] | None,
) -> None:
    """One decoded row of a frames table, with its usable persons in order, appended to the columns of `Samples`."""
    sam, zoom = segmentation.sam, segmentation.zoom
    assert sam is not None
    height, width = image.shape[:2]
    scale = (sam.image_size if zoom is None else WIDE_PX) / max(height, width)
    wide_hw = (round(height * scale), round(width * scale))
    frame = len(columns["scenes"])
    columns["scenes"].append(cv2.resize(image, scene_hw[::-1], interpolation=cv2.INTER_AREA))
    columns["wide"].append(cv2.resize(image, wide_hw[::-1], interpolation=cv2.INTER_AREA))
    for person in row["persons"]:
        if not is_usable(person) or not (identities is None or person["identity"] in identities):
            continue
        box = np.array(person["box_xyxy_px"], dtype=np.float32)
        mask = rle_to_mask(person["mask_rle"]).astype(np.uint8) * 255
        share = np.array([width, height, width, height], dtype=np.float32)
        if zoom is None:
            size = tuple(side // mask_stride(sam) for side in wide_hw[::-1])
            columns["masks"].append(np.packbits(cv2.resize(mask, size, interpolation=cv2.INTER_AREA) > 127, axis=1))
        else:
            window = Window.around(box, zoom * WINDOW_ROOM)
            columns["windows"].append(window_with_mask(image, mask, window, round(sam.image_size * WINDOW_ROOM)))
            columns["squares"].append(window.box_xyxy_px / share)
        columns["crops"].append(crop_with_room(image, box))
        columns["boxes"].append(box / share)
        columns["frame"].append(frame)
        columns["identity"].append(numbers.setdefault(f"{row['archive']}/{person['identity']}", len(numbers)))
        columns["camera"].append(cameras.setdefault(f"{row['archive']}/{row['camera_id']}", len(cameras)))
        columns["texts"].append(person["text"] or "")


def crop_with_room(image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The box and a quarter around it; beyond the frame its edge is repeated, so that shares stay true."""
    height, width = image.shape[:2]
    room = (box[2:] - box[:2]) * CROP_MARGIN
    low, high = np.floor(box[:2] - room).astype(int), np.ceil(box[2:] + room).astype(int)
    inside = crop(image, np.array([*np.maximum(low, 0), *np.minimum(high, [width, height])], dtype=np.float32))
    pads = np.maximum([-low[1], high[1] - height, -low[0], high[0] - width], 0).tolist()
    padded = np.pad(inside, ((pads[0], pads[1]), (pads[2], pads[3]), (0, 0)), mode="edge") if any(pads) else inside
    return cv2.resize(padded, CROP_HW[::-1], interpolation=cv2.INTER_AREA)


def window_with_mask(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], window: Window, side_px: int
) -> NDArray[np.uint8]:
    """(side_px, side_px, 4) the window's RGB and, 0 to 255, its mask; beyond the frame SAM's mean colour, no person."""
    pixels = np.dstack([window.cut(image), window.cut(mask[..., None], colour=(0,))])
    is_shrunk = side_px < window.side
    return cv2.resize(pixels, (side_px, side_px), interpolation=cv2.INTER_AREA if is_shrunk else cv2.INTER_LINEAR)


@dataclass(frozen=True)
class Draw:
    """What one step looks at: numbers of persons and frames."""

    queries: NDArray[np.int32]
    """(Q,) persons whose crop and text are the queries."""
    frames: NDArray[np.int32]
    """(N,) target frames."""
    contrast_queries: NDArray[np.int32]
    contrast_crops: NDArray[np.int32]


class Sampler:
    """P identities × K other sightings as targets per step (§V-A.4), and a larger batch of crops for the contrast."""

    def __init__(
        self, samples: Samples, *, identities_per_step: int, targets_per_identity: int, contrast: int, seed: int
    ) -> None:
        order = np.argsort(samples.identity, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(samples.identity[order])) + 1)
        self._groups = [g.astype(np.int32) for g in groups if len(np.unique(samples.frame[g])) >= 2]
        if len(self._groups) < max(identities_per_step, 2):
            raise DataError(
                f"only {len(self._groups)} identities are seen in two frames or more; {identities_per_step} are needed "
                "per step. Train on a larger archive or lower identities_per_step."
            )
        self._samples, self._seed = samples, seed
        self._identities, self._targets = identities_per_step, targets_per_identity
        self._contrast = min(contrast, len(self._groups))
        self._contrast_queries = max(2, int(CONTRAST_QUERIES_SHARE * self._contrast))

    def draw(self, step: int) -> Draw:
        """The draw of one step."""
        rng = np.random.default_rng([self._seed, step])
        queries, frames = [], []
        for group in rng.choice(len(self._groups), self._identities, replace=False):
            first, *others = self._sightings(self._groups[group], 1 + self._targets, rng)
            queries.append(first)
            frames += [self._samples.frame[o] for o in others]
        contrast = [
            self._sightings(self._groups[g], 3, rng)
            for g in rng.choice(len(self._groups), self._contrast, replace=False)
        ]
        return Draw(
            queries=np.array(queries, dtype=np.int32),
            frames=np.unique(np.array(frames, dtype=np.int32)),
            contrast_queries=np.array([c[-1] for c in contrast[: self._contrast_queries]], dtype=np.int32),
            contrast_crops=np.array([c[i] for i in (0, 1) for c in contrast], dtype=np.int32),
        )

    def _sightings(self, group: NDArray[np.int32], count: int, rng: np.random.Generator) -> list[int]:
        return draw_sightings(self._samples.frame, self._samples.camera, group, count, rng)


def draw_sightings(
    frame: NDArray[np.int32], camera: NDArray[np.int32], group: NDArray[np.int32], count: int, rng: np.random.Generator
) -> list[int]:
    """Up to `count` sightings of one identity: the first at random, then other cameras' before its own."""
    order = rng.permutation(group)
    first = order[0]
    rest = order[frame[order] != frame[first]]
    is_same_camera = camera[rest] == camera[first]
    ranked = rest[np.argsort(is_same_camera + rng.uniform(0, 1.2, len(rest)), kind="stable")]
    return [int(first), *ranked[: count - 1].tolist()]
