"""Which detections become persons: the paper's rules, each drop with a reason that is counted.

Rules look at one box; a rule answers Keep() or Drop(reason). Non-maximum suppression compares boxes and comes last.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workflows.annotate.detector import Detections


@dataclass(frozen=True)
class Keep:
    """The person stays."""


@dataclass(frozen=True)
class Drop:
    """The person goes; `reason` is counted."""

    reason: str


@dataclass(frozen=True)
class Candidate:
    """One detection, clipped to its frame."""

    width_px: float
    height_px: float
    score: float


Verdict = Keep | Drop
Rule = Callable[[Candidate], Verdict]
DUPLICATE = "person_overlaps_a_surer_one"


@dataclass(frozen=True)
class PersonFilters:
    """The filters of one ingest: score on the detector's scale, sizes in pixels, NMS by IoU."""

    min_score: float
    min_height_px: float
    min_width_px: float
    nms_iou: float

    def apply(self, detections: Detections, *, width_px: int, height_px: int) -> tuple[Detections, Counter[str]]:
        """The persons of a frame of that size, surest first, and how many detections were dropped for which reason."""
        boxes = clip_boxes(detections.boxes_xyxy_px, width_px=width_px, height_px=height_px)
        clipped = Detections(boxes, detections.scores, detections.track_ids)
        drops: Counter[str] = Counter()
        kept = []
        for place, (box, score) in enumerate(zip(boxes, detections.scores, strict=True)):
            verdict = self.judge(Candidate(float(box[2] - box[0]), float(box[3] - box[1]), float(score)))
            if isinstance(verdict, Drop):
                drops[verdict.reason] += 1
            else:
                kept.append(place)
        persons = clipped.take(np.array(kept, np.intp))
        chosen = suppress_overlaps(persons.boxes_xyxy_px, persons.scores, iou=self.nms_iou)
        if len(chosen) < len(persons):
            drops[DUPLICATE] += len(persons) - len(chosen)
        return persons.take(chosen), drops

    def judge(self, candidate: Candidate) -> Verdict:
        """The verdict of the first rule that drops, else Keep()."""
        for rule in self._rules:
            verdict = rule(candidate)
            if isinstance(verdict, Drop):
                return verdict
        return Keep()

    @property
    def _rules(self) -> Sequence[Rule]:
        return (is_in_frame, self.is_sure, self.is_high, self.is_wide)

    def is_sure(self, candidate: Candidate) -> Verdict:
        return Keep() if candidate.score >= self.min_score else Drop("person_score_too_low")

    def is_high(self, candidate: Candidate) -> Verdict:
        return Keep() if candidate.height_px >= self.min_height_px else Drop("person_too_low_in_pixels")

    def is_wide(self, candidate: Candidate) -> Verdict:
        return Keep() if candidate.width_px >= self.min_width_px else Drop("person_too_narrow_in_pixels")


def is_in_frame(candidate: Candidate) -> Verdict:
    """Drops boxes that lie outside the frame, have no area, or are not numbers."""
    has_area = candidate.width_px > 0 and candidate.height_px > 0 and np.isfinite(candidate.score)
    return Keep() if has_area else Drop("person_outside_frame")


def clip_boxes(boxes_xyxy_px: NDArray[np.float32], *, width_px: int, height_px: int) -> NDArray[np.float32]:
    """The boxes cut at the frame's edges."""
    most = np.array([width_px, height_px, width_px, height_px], np.float32)
    return np.clip(boxes_xyxy_px, 0, most).astype(np.float32)


def suppress_overlaps(
    boxes_xyxy_px: NDArray[np.float32], scores: NDArray[np.float32], *, iou: float
) -> NDArray[np.intp]:
    """Places of the boxes that stay, surest first: greedily, one goes if it overlaps a surer one by more than `iou`."""
    order = np.argsort(-scores, kind="stable")
    boxes = boxes_xyxy_px[order].astype(np.float64)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    is_alive = np.ones(len(boxes), np.bool_)
    for place in range(len(boxes)):
        if not is_alive[place]:
            continue
        sides = np.minimum(boxes[place, 2:], boxes[place + 1 :, 2:]) - np.maximum(
            boxes[place, :2], boxes[place + 1 :, :2]
        )
        inner = np.clip(sides, 0, None).prod(axis=1)
        overlap = inner / (area[place] + area[place + 1 :] - inner)
        is_alive[place + 1 :] &= overlap <= iou
    return order[is_alive]
