"""Slow, obvious versions of the scores: what the fast code must equal. Plain Python, one definition after the other."""

from collections.abc import Sequence


def ranked_matches(
    distances: Sequence[float],
    query: tuple[object, object],
    gallery: Sequence[tuple[object, object]],
) -> list[bool]:
    """One query's ranking, junk left out; query and gallery entries are (identity, camera)."""
    order = sorted(range(len(gallery)), key=lambda place: (distances[place], place))
    kept = [place for place in order if gallery[place] != query]
    return [gallery[place][0] == query[0] for place in kept]


def average_precision(is_right: Sequence[bool]) -> float:
    """Mean over the right candidates of the share of right ones up to and including each."""
    precisions = []
    for place, right in enumerate(is_right, start=1):
        if right:
            precisions.append(sum(is_right[:place]) / place)
    return sum(precisions) / len(precisions)


def map_tau_eq1(rankings: Sequence[Sequence[bool]], length: int) -> float:
    """Instruct-ReID++ eq. 1 read literally: psi[k] is eq. 2 for the k-th result of a query."""
    total = 0.0
    for psi in rankings:
        num_correct = sum(psi[:length])
        for k in range(1, min(length, len(psi)) + 1):
            if num_correct:
                total += psi[k - 1] / (k * num_correct) * sum(psi[:k])
    return total / len(rankings)


def inverse_negative_penalty(is_right: Sequence[bool]) -> float:
    """Right candidates over the rank at which the last of them is found."""
    last = max(place for place, right in enumerate(is_right, start=1) if right)
    return sum(is_right) / last


def cmc(rankings: Sequence[Sequence[bool]], max_rank: int) -> list[float]:
    """Share of rankings with a right candidate among the first k, for k = 1 ... max_rank."""
    return [sum(any(ranking[:k]) for ranking in rankings) / len(rankings) for k in range(1, max_rank + 1)]


def segmentation(
    pairs: Sequence[tuple[Sequence[Sequence[bool]] | None, Sequence[Sequence[bool]] | None]], rule: str
) -> tuple[float, float]:
    """(gIoU, cIoU) of (predicted, true) masks as nested lists; None = rejected, or absent."""
    ious, intersections, unions = [], [], []
    for predicted, true in pairs:
        if predicted is None and true is None and rule == "psreid":
            continue
        ours = pixels(predicted)
        theirs = pixels(true)
        intersections.append(len(ours & theirs))
        unions.append(len(ours | theirs))
        ious.append(1.0 if predicted is None and true is None else len(ours & theirs) / max(1, len(ours | theirs)))
    return sum(ious) / len(ious), sum(intersections) / sum(unions)


def pixels(mask: Sequence[Sequence[bool]] | None) -> set[tuple[int, int]]:
    """The places of a mask's pixels."""
    if mask is None:
        return set()
    return {(y, x) for y, row in enumerate(mask) for x, value in enumerate(row) if value}
