"""The loss terms once more, as plain Python over single numbers: what the tensor code must equal."""

import math
from collections.abc import Sequence

Box = Sequence[float]


def eq9(distances: Sequence[Sequence[float]], positive: Sequence[Sequence[bool]], tau: float, negatives: str) -> float:
    """Eq. 9-11 by query; queries without a positive or without a negative do not count."""
    total, count = 0.0, 0
    for row, is_positive in zip(distances, positive, strict=True):
        near = [d for d, p in zip(row, is_positive, strict=True) if p]
        far = [d for d, p in zip(row, is_positive, strict=True) if not p]
        if near and far:
            sign = -1 if negatives == "hard" else 1
            total += math.log(1 + math.exp((eq10(near, 1) - eq10(far, sign)) / tau))
            count += 1
    return total / count if count else 0.0


def eq10(distances: Sequence[float], sign: int) -> float:
    """The mean of distances under the weights of eq. 11."""
    largest = max(sign * d for d in distances)
    weights = [math.exp(sign * d - largest) for d in distances]
    return sum(w * d for w, d in zip(weights, distances, strict=True)) / sum(weights)


def ciou(box: Box, truth: Box) -> float:
    """1 - complete IoU of two xyxy boxes."""
    width, height = box[2] - box[0], box[3] - box[1]
    true_width, true_height = truth[2] - truth[0], truth[3] - truth[1]
    overlap_x = max(0.0, min(box[2], truth[2]) - max(box[0], truth[0]))
    overlap_y = max(0.0, min(box[3], truth[3]) - max(box[1], truth[1]))
    intersection = overlap_x * overlap_y
    iou = intersection / (width * height + true_width * true_height - intersection)
    hull = (max(box[2], truth[2]) - min(box[0], truth[0])) ** 2 + (max(box[3], truth[3]) - min(box[1], truth[1])) ** 2
    shift_x = (box[0] + box[2] - truth[0] - truth[2]) / 2
    shift_y = (box[1] + box[3] - truth[1] - truth[3]) / 2
    aspect = 4 / math.pi**2 * (math.atan(true_width / true_height) - math.atan(width / height)) ** 2
    alpha = aspect / (1 - iou + aspect) if aspect else 0.0
    return 1 - iou + (shift_x**2 + shift_y**2) / hull + alpha * aspect


def contrast(logits: Sequence[Sequence[float]], is_same: Sequence[Sequence[bool]]) -> float:
    """-log of each positive's share among itself and all negatives, first by row, then over rows with positives."""
    rows = []
    for row, same in zip(logits, is_same, strict=True):
        negatives = sum(math.exp(x) for x, s in zip(row, same, strict=True) if not s)
        terms = [-math.log(math.exp(x) / (math.exp(x) + negatives)) for x, s in zip(row, same, strict=True) if s]
        if terms:
            rows.append(sum(terms) / len(terms))
    return sum(rows) / len(rows) if rows else 0.0


def dice(logits: Sequence[float], truth: Sequence[bool]) -> float:
    """1 - Dice of one mask, smoothed by one pixel."""
    shares = [1 / (1 + math.exp(-x)) for x in logits]
    overlap = sum(p for p, t in zip(shares, truth, strict=True) if t)
    return 1 - (2 * overlap + 1) / (sum(shares) + sum(truth) + 1)


def weighted_bce(logits: Sequence[float], truth: Sequence[bool], foreground: float) -> float:
    """Cross-entropy of one mask, a foreground pixel counting `foreground` times."""
    total, weights = 0.0, 0.0
    for x, t in zip(logits, truth, strict=True):
        weight = foreground if t else 1.0
        share = 1 / (1 + math.exp(-x))
        total -= weight * math.log(share if t else 1 - share)
        weights += weight
    return total / weights
