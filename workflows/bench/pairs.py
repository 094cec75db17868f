"""Made-up queries and targets for timing: what they show costs nothing, how much of it there is does."""

import numpy as np

from modeling.types import ImageHWC, QueryInput, TargetInput

FRAME_HEIGHT, FRAME_WIDTH = 360, 640
PERSONS = (5, 2, 8, 4, 6, 3, 7, 5)
"""Detected persons of successive targets: any eight in a row hold the same."""
PERSON_SIZE = np.array([40, 100])  # pixels
TEXT = "a woman with long blond hair, a red coat with a belt, blue jeans, white shoes and a black backpack"


def made_up_queries(count: int) -> dict[str, QueryInput]:
    """Picture, text, and both in turn; texts differ in length."""
    rng, words, queries = np.random.default_rng(0), TEXT.split(), []
    for number in range(count):
        image = _picture(rng, 128, 56) if number % 3 != 1 else None
        text = " ".join(words[: 4 + 3 * number % len(words)]) if number % 3 != 0 else None
        queries.append(QueryInput(f"query-{number}", image, text))
    return {query.query_id: query for query in queries}


def made_up_targets(count: int) -> list[TargetInput]:
    """Frames of one size with 2 to 8 detected persons."""
    rng, targets = np.random.default_rng(1), []
    for number in range(count):
        corner = rng.uniform(0, 0.7, (PERSONS[number % len(PERSONS)], 2)) * (FRAME_WIDTH, FRAME_HEIGHT)
        boxes = np.concatenate([corner, corner + PERSON_SIZE], axis=1).astype(np.float32)
        targets.append(TargetInput(f"frame-{number}", _picture(rng, FRAME_HEIGHT, FRAME_WIDTH), boxes))
    return targets


def all_pairs(queries: dict[str, QueryInput], num_targets: int) -> list[tuple[str, int]]:
    """Every query on every target."""
    return [(query_id, target) for target in range(num_targets) for query_id in queries]


def spread_pairs(queries: dict[str, QueryInput], num_targets: int, count: int) -> list[tuple[str, int]]:
    """`count` pairs, or all where they are fewer, with queries and targets equally often as far as that goes."""
    ids, total = list(queries), len(queries) * num_targets
    if count >= total:
        return all_pairs(queries, num_targets)
    # A lap around the targets shifts the queries by one, so no pair comes twice.
    return [(ids[(i + i // num_targets) % len(ids)], i % num_targets) for i in range(count)]


def _picture(rng: np.random.Generator, height: int, width: int) -> ImageHWC:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
