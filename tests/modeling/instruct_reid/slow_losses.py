"""Eq. 7-14 of Instruct-ReID++ written out one number at a time."""

import math
from collections.abc import Sequence

Vector = Sequence[float]


def cosine(a: Vector, b: Vector) -> float:
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def squared_distance(a: Vector, b: Vector) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def beta(identity_a: int, identity_r: int, instruction_a: Vector, instruction_r: Vector) -> float:
    """Eq. 8, a negative cosine as 0."""
    return max(0.0, cosine(instruction_a, instruction_r)) if identity_a == identity_r else 0.0


def triplet_costs(
    features: Sequence[Vector], identities: Sequence[int], instructions: Sequence[Vector], margin: float
) -> list[tuple[int, float]]:
    """(anchor, cost) of eq. 7 for every ordered triplet whose β differ."""
    costs = []
    for a in range(len(features)):
        for r1 in range(len(features)):
            for r2 in range(len(features)):
                if a in (r1, r2) or r1 == r2:
                    continue
                b1, b2 = (beta(identities[a], identities[r], instructions[a], instructions[r]) for r in (r1, r2))
                if abs(b1 - b2) < 1e-6:
                    continue
                sign = 1 if b1 > b2 else -1
                d1, d2 = (squared_distance(features[a], features[r]) for r in (r1, r2))
                costs.append((a, max(0.0, sign * (d1 + (b1 - b2) * margin - d2))))
    return costs


def softmax(values: Vector, temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def divergence(target: Vector, share: Vector) -> float:
    """KL(target || share)."""
    return sum(p * math.log(p / q) for p, q in zip(target, share, strict=True) if p > 0)


def printed(target: Vector, share: Vector, xi: float) -> float:
    """The sum of eq. 12 and 13 with the fraction as printed."""
    return sum(p * math.log(q / (p + xi)) for p, q in zip(target, share, strict=True))


def contrast(images: Sequence[Vector], texts: Sequence[Vector], identities: Sequence[int], temperature: float) -> float:
    """Both directions, the target shared among the pairs of one identity."""
    total = 0.0
    for rows, columns in ((images, texts), (texts, images)):
        for row, identity in zip(rows, identities, strict=True):
            share = softmax([cosine(row, column) for column in columns], temperature)
            right = [n for n, other in enumerate(identities) if other == identity]
            total += -sum(math.log(share[n]) for n in right) / len(right)
    return total / (2 * len(identities))
