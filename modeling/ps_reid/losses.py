"""The training objective of PS-ReID, term by term (§IV-C, eq. 8-13).

Shapes: Q queries, N targets, P positive pairs, h w mask pixels, D width of the language model, V vocabulary, K
candidates, M width of the metric, B persons. Boxes are xyxy as shares of the frame's sides.
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LossWeights:
    """The weights λ of eq. 8, 9 and 13, and of our own terms. The paper's: weighted BCE 2, everything else 1."""

    reid: float = 1.0
    text: float = 1.0
    wbce: float = 2.0
    dice: float = 1.0
    smooth_l1: float = 1.0
    ciou: float = 1.0
    metric: float = 1.0
    """Ours: query against person crops in the metric space (`metric_loss`)."""
    grounding: float = 1.0
    """Ours: the pointer to the right candidate (`grounding_loss`)."""
    tau: float = 0.1
    """τ of eq. 9, the sharpness of the margin."""
    negatives: str = "hard"
    """How eq. 11 weighs negatives: "hard" towards small distances (the prose), "literal" as printed for positives."""
    foreground: float = 3.0
    """How much more a foreground pixel weighs in the weighted BCE."""


@dataclass(frozen=True)
class LossTerms:
    """Unweighted terms of one step; `total` is eq. 8."""

    reid: Tensor
    text: Tensor
    wbce: Tensor
    dice: Tensor
    smooth_l1: Tensor
    ciou: Tensor
    metric: Tensor
    grounding: Tensor

    def total(self, weights: LossWeights) -> Tensor:
        """The weighted sum (eq. 8 and 13)."""
        return torch.stack([getattr(weights, f.name) * getattr(self, f.name) for f in fields(self)]).sum()


def reid_loss(
    qry_QD: Tensor, states_NQD: Tensor, is_positive_NQ: Tensor, *, tau: float, negatives: str = "hard"
) -> Tensor:
    """Eq. 9 without λ: log(1 + exp((d+ - d-) / τ)), the mean over queries that have both a positive and a negative.

    d is the cosine distance of the [QRY] state to the [SEG] or [REJ] state of each target, averaged by the weights of
    eq. 11. Eq. 11 weighs larger distances more; for negatives the paper says "the same formulation" and that hard
    samples count more, which only smaller distances are: `negatives="hard"` follows the words, "literal" the formula.
    """
    return reid_loss_of_distances(reid_distances(qry_QD, states_NQD), is_positive_NQ, tau=tau, negatives=negatives)


def reid_distances(qry_QD: Tensor, states_NQD: Tensor) -> Tensor:
    """(N, Q) cosine distances of the [QRY] states to the [SEG] or [REJ] state of each target."""
    return 1 - F.cosine_similarity(qry_QD.float()[None], states_NQD.float(), dim=-1)


def reid_loss_of_distances(
    distance_NQ: Tensor, is_positive_NQ: Tensor, *, tau: float, negatives: str = "hard"
) -> Tensor:
    """`reid_loss` from the distances."""
    if negatives not in ("hard", "literal"):
        raise ValueError(f"negatives is {negatives!r}; it must be 'hard' or 'literal'")
    distance_QN, is_positive_QN = distance_NQ.t(), is_positive_NQ.t()
    has_both = is_positive_QN.any(1) & (~is_positive_QN).any(1)
    if not has_both.any():
        return distance_QN.sum() * 0.0
    positive_Q = _weighted_distance(distance_QN[has_both], is_positive_QN[has_both], sign=1.0)
    sign = -1.0 if negatives == "hard" else 1.0
    negative_Q = _weighted_distance(distance_QN[has_both], ~is_positive_QN[has_both], sign=sign)
    return F.softplus((positive_Q - negative_Q) / tau).mean()


def _weighted_distance(distance_QN: Tensor, chosen_QN: Tensor, *, sign: float) -> Tensor:
    """Eq. 10 with the weights of eq. 11 (a softmax over the chosen distances, `sign` -1 favours small ones)."""
    weights = (sign * distance_QN).masked_fill(~chosen_QN, float("-inf")).softmax(1)
    return (weights * distance_QN).sum(1)


def text_loss(logits: Tensor, answers: Tensor, *, weight_of_answer: Tensor | None = None) -> Tensor:
    """Eq. 12: cross-entropy of the answer's tokens; logits (..., V), answers (...) of token numbers.

    `weight_of_answer` (V,) balances answers, most pairs of an archive being [REJ].
    """
    flat = logits.flatten(0, -2).float()
    return F.cross_entropy(flat, answers.flatten(), weight=weight_of_answer)


def weighted_bce_loss(logits_Phw: Tensor, truth_Phw: Tensor, *, foreground: float) -> Tensor:
    """Binary cross-entropy in which foreground pixels weigh `foreground` times as much; the mean weight is one."""
    truth = truth_Phw.to(logits_Phw.dtype)
    weight = 1 + (foreground - 1) * truth
    loss = F.binary_cross_entropy_with_logits(logits_Phw, truth, reduction="none") * weight
    return (loss.flatten(1).sum(1) / weight.flatten(1).sum(1)).mean()


def dice_loss(logits_Phw: Tensor, truth_Phw: Tensor) -> Tensor:
    """1 - Dice coefficient, smoothed by one pixel, the mean over pairs."""
    predicted, truth = logits_Phw.sigmoid().flatten(1), truth_Phw.flatten(1).to(logits_Phw.dtype)
    overlap = (predicted * truth).sum(1)
    return (1 - (2 * overlap + 1) / (predicted.sum(1) + truth.sum(1) + 1)).mean()


def smooth_l1_loss(boxes_P4: Tensor, truth_P4: Tensor, *, beta: float = 0.02) -> Tensor:
    """Smooth-L1 of box corners, in shares of the frame; quadratic below `beta`."""
    if not len(boxes_P4):
        return boxes_P4.sum()  # a batch without positives: 0, where the mean would be NaN
    return F.smooth_l1_loss(boxes_P4, truth_P4, beta=beta)


def ciou_loss(boxes_P4: Tensor, truth_P4: Tensor) -> Tensor:
    """1 - complete IoU (Zheng et al. 2020): overlap, distance of centres, aspect ratio; the mean, 0 for no box."""
    if not len(boxes_P4):
        return boxes_P4.sum()
    low, high = torch.maximum(boxes_P4[:, :2], truth_P4[:, :2]), torch.minimum(boxes_P4[:, 2:], truth_P4[:, 2:])
    intersection = (high - low).clamp(min=0).prod(1)
    size, true_size = boxes_P4[:, 2:] - boxes_P4[:, :2], truth_P4[:, 2:] - truth_P4[:, :2]
    union = size.prod(1) + true_size.prod(1) - intersection
    iou = intersection / union.clamp(min=1e-9)
    hull = torch.maximum(boxes_P4[:, 2:], truth_P4[:, 2:]) - torch.minimum(boxes_P4[:, :2], truth_P4[:, :2])
    shift = (boxes_P4[:, :2] + boxes_P4[:, 2:] - truth_P4[:, :2] - truth_P4[:, 2:]) / 2
    distance = shift.square().sum(1) / hull.square().sum(1).clamp(min=1e-9)
    angle = (true_size[:, 0] / true_size[:, 1].clamp(min=1e-6)).atan() - (
        size[:, 0] / size[:, 1].clamp(min=1e-6)
    ).atan()
    aspect = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        alpha = aspect / (1 - iou + aspect).clamp(min=1e-9)
    return (1 - iou + distance + alpha * aspect).mean()


def metric_loss(query_QM: Tensor, person_BM: Tensor, is_same_QB: Tensor, scale: Tensor) -> Tensor:
    """Contrast of queries with persons, both ways, any number of positives each (ours; InfoNCE in the metric space)."""
    return metric_loss_of_logits(metric_logits(query_QM, person_BM, scale), is_same_QB)


def metric_logits(query_QM: Tensor, person_BM: Tensor, scale: Tensor) -> Tensor:
    """(Q, B) scaled cosines, in float32 whatever is around."""
    with torch.autocast(query_QM.device.type, enabled=False):
        return scale.float() * (query_QM.float() @ person_BM.float().t())


def metric_loss_of_logits(logits_QB: Tensor, is_same_QB: Tensor) -> Tensor:
    """`metric_loss` from the logits."""
    return (_contrast(logits_QB, is_same_QB) + _contrast(logits_QB.t(), is_same_QB.t())) / 2


def _contrast(logits: Tensor, is_same: Tensor) -> Tensor:
    """-log of the probability of each positive among it and all negatives, the mean over rows that have positives."""
    has_positive = is_same.any(1)
    if not has_positive.any():
        return logits.sum() * 0.0
    logits, is_same = logits[has_positive], is_same[has_positive]
    negatives = logits.masked_fill(is_same, float("-inf")).logsumexp(1, keepdim=True)
    per_pair = F.softplus(negatives - logits) * is_same
    return (per_pair.sum(1) / is_same.sum(1)).mean()


def grounding_loss(logits_PK: Tensor, is_right_PK: Tensor) -> Tensor:
    """-log of the pointer's probability on the right candidates; pairs with none are left out (ours)."""
    usable = is_right_PK.any(1)
    if not usable.any():
        return logits_PK.new_zeros(())
    log_share = logits_PK[usable].log_softmax(1)
    return -log_share.masked_fill(~is_right_PK[usable], float("-inf")).logsumexp(1).mean()
