"""gIoU and cIoU of masks over query-frame pairs, under a named rule.

The rules differ in which pairs count and in what a pair without a person is worth:

    psreid    pairs where the person is present or the model says so. A false accept and a false reject have IoU 0;
              a correct "not here" is left out, so an archive's many absent pairs cannot lift the score.
    gres      every pair, as GRES evaluates generalised referring segmentation: a correct "not here" has IoU 1.

gIoU is the mean of the pairs' IoU; cIoU is the summed intersection over the summed union of the same pairs (a false
accept adds its mask to the union, a false reject the true mask). A report names its rule beside its numbers.

Shapes: H, W = frame height and width in pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from modeling.errors import DataError
from modeling.regions import BoolArray


class Rule(StrEnum):
    """Which pairs count; see the module's docstring."""

    PSREID = "psreid"
    GRES = "gres"


@dataclass(frozen=True)
class PairAreas:
    """One pair's pixels: all that any rule needs of its two masks."""

    intersection: int
    union: int
    is_present: bool
    """The queried person is in the frame."""
    is_accepted: bool
    """The model says so."""

    @property
    def iou(self) -> float:
        """In [0, 1]; 1 when the person is rightly not found, 0 on a false accept or a false reject."""
        if not self.is_present and not self.is_accepted:
            return 1.0
        return self.intersection / self.union if self.union else 0.0


@dataclass(frozen=True)
class SegmentationScores:
    """Fractions of 1; NaN when no pair counts under the rule."""

    giou: float
    ciou: float
    num_pairs: int
    """Pairs that count under the rule."""
    rule: Rule


def measure_pair(predicted_HW: BoolArray | None, true_HW: BoolArray | None, *, min_pixels: int = 0) -> PairAreas:
    """The areas of one pair; None = the model rejected the pair, or the person is not in the frame.

    A predicted mask of fewer than `min_pixels` pixels counts as a rejection (papers on referring segmentation use 50);
    with 0 the model's decision stands, however small its mask. A person whose true mask has no pixel counts as absent.
    """
    if predicted_HW is not None and true_HW is not None and predicted_HW.shape != true_HW.shape:
        raise DataError(f"mask shapes differ: predicted {predicted_HW.shape}, true {true_HW.shape} (height, width)")
    return pair_areas(
        num_predicted=_num_pixels(predicted_HW),
        num_true=_num_pixels(true_HW),
        num_shared=0 if predicted_HW is None or true_HW is None else _num_pixels(predicted_HW & true_HW),
        is_accepted=predicted_HW is not None,
        min_pixels=min_pixels,
    )


def pair_areas(
    *, num_predicted: int, num_true: int, num_shared: int, is_accepted: bool, min_pixels: int = 0
) -> PairAreas:
    """`measure_pair` from counts of pixels: of the predicted mask, of the true one, and of what they share."""
    is_present = num_true > 0
    if not is_accepted or num_predicted < min_pixels:
        return PairAreas(0, num_true, is_present, is_accepted=False)
    return PairAreas(num_shared, num_predicted + num_true - num_shared, is_present, is_accepted=True)


def score_pairs(pairs: Iterable[PairAreas], *, rule: Rule = Rule.PSREID) -> SegmentationScores:
    """gIoU and cIoU of all pairs that count under the rule."""
    iou_sum, intersection, union, num_pairs = 0.0, 0, 0, 0
    for pair in pairs:
        if not is_counted(pair, rule):
            continue
        iou_sum += pair.iou
        intersection += pair.intersection
        union += pair.union
        num_pairs += 1
    if num_pairs == 0:
        return SegmentationScores(np.nan, np.nan, 0, rule)
    ciou = intersection / union if union else 1.0  # gres: nothing to find anywhere, and nothing found
    return SegmentationScores(iou_sum / num_pairs, ciou, num_pairs, rule)


def is_counted(pair: PairAreas, rule: Rule) -> bool:
    """Whether a pair is one of those that the rule scores."""
    return rule is Rule.GRES or pair.is_present or pair.is_accepted


def _num_pixels(mask_HW: BoolArray | None) -> int:
    return 0 if mask_HW is None else int(np.count_nonzero(mask_HW))
