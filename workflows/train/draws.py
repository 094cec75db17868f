"""What a batch looks at: P identities × K sightings (§V-A.4), drawn from the catalogue.

A draw depends on the seed and the batch's number alone: any process can make any batch, so a run resumes anywhere and
does not depend on how many processes share it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modeling.errors import DataError
from workflows.train.catalogue import Catalogue
from workflows.train.samples import draw_sightings

HELD_OUT, DRAW, EVALUATION = 11, 12, 13  # kinds of chance


@dataclass(frozen=True)
class BatchDraw:
    """One batch: Q queried persons and N target frames, those whose masks are learned first."""

    queries: NDArray[np.int32]
    frames: NDArray[np.int32]
    mask_frames: int
    """How many of the frames, from the first on, have their masks supervised."""

    def share(self, rank: int, workers: int) -> NDArray[np.int64]:
        """Places in `frames` of one process's targets: dealt in turn, so that mask frames are spread too."""
        return np.arange(rank, len(self.frames), workers)

    def mask_frames_of_a_share(self, workers: int) -> int:
        """Frames that every process segments; processes with fewer of the batch's mask frames fill up."""
        return -(-self.mask_frames // workers)


@dataclass(frozen=True)
class DrawPlan:
    """The numbers of a batch."""

    identities: int
    targets_per_identity: int
    other_targets: int
    query_variants: int
    mask_frames: int
    seed: int

    @property
    def targets(self) -> int:
        """Targets of every batch."""
        return self.identities * self.targets_per_identity + self.other_targets


class PairSampler:
    """Draws batches of the identities that are not held out."""

    def __init__(self, catalogue: Catalogue, plan: DrawPlan, held_out: frozenset[int]) -> None:
        self._catalogue, self._plan = catalogue, plan
        self._groups = [
            group
            for number, group in enumerate(catalogue.sightings())
            if number not in held_out and len(np.unique(catalogue.frame[group])) >= 2
        ]
        if len(self._groups) < plan.identities:
            raise DataError(
                f"only {len(self._groups)} identities are seen in two frames or more and are not held out; "
                f"identities_per_step is {plan.identities}. Train on a larger archive, lower identities_per_step or "
                "held_out_share."
            )
        if len(catalogue.frame_ids) < plan.targets:
            raise DataError(
                f"there are {len(catalogue.frame_ids)} usable frames, and a batch needs {plan.targets}. Train on a "
                "larger archive, or lower identities_per_step, targets_per_identity or other_targets."
            )

    def draw(self, batch: int) -> BatchDraw:
        """One batch; its targets are always as many as the plan says."""
        rng, plan, catalogue = np.random.default_rng([self._plan.seed, DRAW, batch]), self._plan, self._catalogue
        queries: list[int] = []
        frames: dict[int, None] = {}
        for group in rng.choice(len(self._groups), plan.identities, replace=False):
            first, *others = draw_sightings(
                catalogue.frame, catalogue.camera, self._groups[group], 1 + plan.targets_per_identity, rng
            )
            queries.append(first)
            frames |= dict.fromkeys(int(catalogue.frame[other]) for other in others)
        while len(frames) < plan.targets:
            frames[int(rng.integers(len(catalogue.frame_ids)))] = None
        listed = np.array(list(frames), dtype=np.int32)
        wanted = set(catalogue.identity[queries].tolist())
        has_positive = np.array(
            [not wanted.isdisjoint(catalogue.identity[catalogue.persons_of(f)].tolist()) for f in listed]
        )
        masked = rng.permutation(np.flatnonzero(has_positive))[: plan.mask_frames]
        rest = np.setdiff1d(np.arange(len(listed)), masked)
        return BatchDraw(
            queries=np.repeat(np.array(queries, dtype=np.int32), plan.query_variants),
            frames=listed[np.concatenate([masked, rest])],
            mask_frames=plan.mask_frames,
        )


def held_out_identities(catalogue: Catalogue, share: float, seed: int) -> frozenset[int]:
    """Identities that only the evaluation queries: a share of those seen in two frames or more."""
    groups = catalogue.sightings()
    usable = [number for number, group in enumerate(groups) if len(np.unique(catalogue.frame[group])) >= 2]
    order = np.random.default_rng([seed, HELD_OUT]).permutation(usable)
    return frozenset(order[: round(share * len(usable))].tolist())
