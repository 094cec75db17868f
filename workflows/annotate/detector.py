"""What finds persons in frames: one protocol, and the way from a name to a detector.

Scores are on the detector's own scale, so every detector says which least score makes sense for it:

    hog            margin of a linear SVM, about -0.3 to 3; 0.6 by default
    transformers   probability of the class, 0 to 1; 0.5 by default (the paper's)
    MOT file       whatever the file holds; 0.5 by default, give --min-score for files on another scale
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from workflows.config import StepConfig

PAPER_MIN_SCORE = 0.5


@dataclass(frozen=True)
class SceneFrame:
    """A frame as a detector sees it."""

    camera_id: str
    stem: str
    """Of the video's (or the image's) file name."""
    frame_index: int
    """Of the video, 0-based; 0 for an image."""
    image: NDArray[np.uint8] | None
    """HWC uint8 RGB; None for detectors that need no pixels."""


@dataclass(frozen=True)
class Detections:
    """Persons found in one frame. N = persons."""

    boxes_xyxy_px: NDArray[np.float32]
    """(N, 4) left, top, right, bottom in pixels of the frame; may reach beyond its edges."""
    scores: NDArray[np.float32]
    """(N,) on the detector's own scale; higher is surer."""
    track_ids: Sequence[str | None] | None = None
    """(N,) where the source knows tracks."""

    @classmethod
    def none(cls) -> "Detections":
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, places: NDArray[np.intp]) -> "Detections":
        """The persons at these places, in this order."""
        tracks = [self.track_ids[place] for place in places] if self.track_ids is not None else None
        return Detections(self.boxes_xyxy_px[places], self.scores[places], tracks)


class Detector(Protocol):
    """Finds persons. Raises nothing for a frame without any."""

    needs_pixels: bool
    min_score: float
    """The least score that makes sense on this detector's scale; the default of `--min-score`."""

    def detect(self, frames: Sequence[SceneFrame]) -> list[Detections]: ...


class HogConfig(StepConfig):
    """OpenCV's HOG people detector. Defaults measured on PETS09-S2L1 (768 x 576, persons of 60 to 100 px)."""

    upscale: float | None = Field(default=None, gt=0, le=4)
    """Factor by which a frame is enlarged first; the smallest person found is 96 px / upscale high. None: 1.5 below
    720 lines, else 1."""
    stride_px: int = Field(default=8, ge=4, le=16, multiple_of=4)
    """Step of the window. 4 takes three times as long and found 1 % more."""
    padding_px: int = Field(default=8, ge=0, le=64)
    """Border added around the frame, so that persons at its edge are found."""
    pyramid_step: float = Field(default=1.1, gt=1, le=2)
    """Ratio between the sizes searched. 1.05 takes twice as long and found nothing more."""
    body_width: float = Field(default=0.53, gt=0, le=1)
    """Width of the person's box as a part of the window's: the detector was trained with a margin."""
    body_height: float = Field(default=0.75, gt=0, le=1)
    """Height of the person's box as a part of the window's."""


class DetectorConfig(StepConfig):
    """Which detector, and its settings."""

    name: str = "hog"
    """"hog" (OpenCV, no weights), "none", or an object-detection checkpoint of transformers: a folder or a hub id."""
    detections: str | None = None
    """MOT file, or a folder of them, used instead of a detector."""
    device: str = "cpu"
    """"cpu" or "cuda"; for checkpoints of transformers."""
    batch_frames: int = Field(default=8, ge=1)
    """Frames given to the detector at once."""
    hog: HogConfig = HogConfig()
    """Settings of the HOG detector."""

    @property
    def needs_pixels(self) -> bool:
        """Whether frames must be decoded for it; it then takes far longer than decoding."""
        return self.detections is None and self.name != "none"


class NoDetector:
    """Finds nobody: for frames whose persons come later."""

    needs_pixels = False
    min_score = PAPER_MIN_SCORE

    def detect(self, frames: Sequence[SceneFrame]) -> list[Detections]:
        return [Detections.none() for _ in frames]


def load_detector(config: DetectorConfig) -> Detector:
    """The detector that `config` names, ready to use. WeightsError or DataError if it cannot be loaded."""
    if config.detections is not None:
        from workflows.annotate.mot import MotDetections

        return MotDetections(config.detections)
    if config.name == "none":
        return NoDetector()
    if config.name == "hog":
        from workflows.annotate.hog import HogDetector

        return HogDetector(config.hog)
    from workflows.annotate.transformers_detector import TransformersDetector

    return TransformersDetector(config.name, device=config.device)
