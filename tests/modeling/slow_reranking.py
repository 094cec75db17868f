"""k-reciprocal re-ranking (Zhong et al. 2017) in plain Python, set by set as the paper defines it."""

import math
from collections.abc import Sequence

Vector = Sequence[float]


def rerank(
    queries: Sequence[Vector], gallery: Sequence[Vector], k1: int, k2: int, original_share: float
) -> list[list[float]]:
    everything = [*queries, *gallery]
    count = len(everything)
    k1 = min(k1, count - 1)
    raw = [[max(0.0, 2 - 2 * sum(a * b for a, b in zip(x, y, strict=True))) for y in everything] for x in everything]
    largest = [max(raw[row][column] for row in range(count)) for column in range(count)]
    distance = [[raw[row][column] / max(largest[column], 1e-12) for row in range(count)] for column in range(count)]
    order = [sorted(range(count), key=lambda other: (distance[one][other], other)) for one in range(count)]

    def reciprocal(one: int, k: int) -> list[int]:
        """R(one, k): mutual members of each other's first k + 1, oneself included."""
        return [other for other in order[one][: k + 1] if one in order[other][: k + 1]]

    weights = [[0.0] * count for _ in range(count)]
    for one in range(count):
        own = reciprocal(one, k1)
        expanded = set(own)
        for other in own:
            theirs = reciprocal(other, round(k1 / 2))
            if len(set(theirs) & set(own)) > 2 / 3 * len(theirs):
                expanded |= set(theirs)
        total = sum(math.exp(-distance[one][other]) for other in expanded)
        for other in expanded:
            weights[one][other] = math.exp(-distance[one][other]) / total
    if k2 > 1:
        weights = [
            [sum(weights[near][column] for near in order[one][:k2]) / k2 for column in range(count)]
            for one in range(count)
        ]
    result = []
    for one in range(len(queries)):
        row = []
        for other in range(len(queries), count):
            low = sum(min(a, b) for a, b in zip(weights[one], weights[other], strict=True))
            high = sum(max(a, b) for a, b in zip(weights[one], weights[other], strict=True))
            row.append((1 - original_share) * (1 - low / high) + original_share * distance[one][other])
        result.append(row)
    return result
