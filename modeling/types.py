"""What goes into the models and what comes out, as plain frozen values. No torch types: they cross process borders."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modeling.errors import DataError

ImageHWC = NDArray[np.uint8]
"""An RGB picture, height x width x 3, values 0-255."""


@dataclass(frozen=True)
class QueryInput:
    """Who we look for: a crop of the person, a description, or both; for instruct-ReID also what is asked.

    Raises DataError when there is neither crop nor description.
    """

    query_id: str
    image: ImageHWC | None
    text: str | None
    task: str | None = None
    """One of the six tasks of instruct-ReID; None asks as the other parts allow."""
    instruction: str | None = None
    """What is asked, in other words than the task's own sentence."""
    clothes: ImageHWC | None = None
    """A picture of the clothes to be worn, for CTCC."""

    def __post_init__(self) -> None:
        if self.image is None and not (self.text and self.text.strip()):
            raise DataError(f"query {self.query_id!r} has neither an image nor a text; give at least one of them")


@dataclass(frozen=True)
class TargetInput:
    """A full-scene frame shown to the judge, with the persons detected in it (possibly none)."""

    frame_id: str
    image: ImageHWC
    boxes_xyxy_px: NDArray[np.float32]
    """(N, 4), in pixels of the frame, best detection first."""


@dataclass(frozen=True)
class MaskPrompt:
    """What the judge hands to the segmenter for one pair: the projected [SEG] state (eq. 6) and where it points."""

    embedding: NDArray[np.float32]
    """(D,), in the prompt space of the SAM decoder; (0,) prompts by the box alone."""
    box_xyxy_px: NDArray[np.float32]
    """(4,), in pixels of the frame."""


@dataclass(frozen=True)
class PairDecision:
    """The judgment of one query on one target (eq. 1)."""

    score: float
    """logit[SEG] - logit[REJ]; above the threshold it is a match."""
    is_match: bool
    prompt: MaskPrompt
