"""The people of an archive: who exists, who resembles whom, who owns a second set of clothes.

Identity number k of a split depends on the seed, the split and k alone. So archives of one seed share their people:
`--split train` and `--split test` are disjoint, `--split all` holds the first half of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from workflows.archive.synthetic.taxonomy import Identity, look_alike, sample_identity, with_other_clothes

SPLITS = ("train", "test")
LOOK_ALIKE_SHARE = 0.4  # of odd identities, who then resemble the even one before them
SECOND_CLOTHES_SHARE = 0.12  # of all identities, unless asked otherwise
STREAMS = {"person": 1, "clothes": 2, "camera": 3, "order": 4, "track": 5, "noise": 6, "words": 7, "queries": 8}


def stream(name: str, seed: int, *parts: int | str) -> np.random.Generator:
    """The random numbers of one purpose; they depend on the arguments alone, so any order of work gives the same."""
    numbers = [part if isinstance(part, int) else int.from_bytes(part.encode(), "big") for part in parts]
    return np.random.default_rng([STREAMS[name], seed, *numbers])


@dataclass(frozen=True)
class Person:
    """One inhabitant of an archive."""

    name: str  # "test-0012": the identity of the tables
    split: str
    wardrobe: tuple[Identity, ...]  # one or two sets of clothes

    def clothes_id(self, clothes: int) -> str:
        return f"{self.name}/clothes-{clothes}"


@lru_cache(maxsize=4096)
def make_person(seed: int, split: str, number: int, second_clothes_share: float = SECOND_CLOTHES_SHARE) -> Person:
    """Identity `number` of a split; a larger share of changing clothes leaves first sets as they are."""
    rng = stream("person", seed, split, number)
    is_look_alike = number % 2 == 1 and rng.random() < LOOK_ALIKE_SHARE
    if is_look_alike:
        identity = look_alike(make_person(seed, split, number - 1).wardrobe[0], rng)
    else:
        identity = sample_identity(rng)
    wardrobe: tuple[Identity, ...] = (identity,)
    if rng.random() < second_clothes_share:
        wardrobe += (with_other_clothes(identity, stream("clothes", seed, split, number)),)
    return Person(f"{split}-{number:04d}", split, wardrobe)


def population(seed: int, split: str, count: int) -> Sequence[tuple[str, int]]:
    """(split, number) of everybody in an archive: `count` of one split, or for "all" half of each."""
    if split != "all":
        return [(split, number) for number in range(count)]
    return [("train", number) for number in range(count - count // 2)] + [
        ("test", number) for number in range(count // 2)
    ]
