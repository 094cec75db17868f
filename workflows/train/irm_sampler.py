"""What each training step looks at: one task, P identities, K pictures of each (§V-B).

Tasks take turns step by step, the same on every worker, so any number of workers trains all of them; each worker takes
its share of the step's identities. A draw depends on the seed, the step and the worker alone, so a run resumes exactly.

Shapes: B = P x K samples of a draw, K in a row of each identity: queries first, then gallery pictures.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from modeling.errors import ConfigError, DataError
from modeling.instruct_reid.instructions import Task
from workflows.train.irm_samples import ReidSamples

logger = logging.getLogger(__name__)

Rows = NDArray[np.int64]
LEAST_IDENTITIES = 2


@dataclass(frozen=True)
class TaskDraw:
    """One worker's part of a step."""

    task: Task
    rows: Rows
    """(B,) crops."""
    wanted: Rows
    """(B,) the crop that each one's instruction is about: another one for queries of CTCC and LI, else itself."""
    sought: Rows
    """(B,) a crop of those among which each one is to be found: a gallery picture of its identity, for T2I itself."""
    is_query: NDArray[np.bool_]


class TaskSampler:
    """P identities x K pictures of one task after the other."""

    def __init__(
        self,
        samples: ReidSamples,
        tasks: Sequence[Task],
        *,
        identities_per_step: int,
        pictures_per_identity: int,
        seed: int,
        shares: Mapping[Task, int] = MappingProxyType({}),
        worker: int = 0,
        num_workers: int = 1,
    ) -> None:
        """`shares` are the steps of each task in a round, one where it names none."""
        if pictures_per_identity < 2 or pictures_per_identity % 2:
            raise ConfigError(f"pictures_per_identity is {pictures_per_identity}; it must be even, half are queries")
        if identities_per_step % num_workers:
            raise ConfigError(
                f"identities_per_step {identities_per_step} cannot be dealt out to {num_workers} workers evenly; "
                f"take a multiple of {num_workers}"
            )
        self._samples, self._seed = samples, seed
        self._per_worker, self._half = identities_per_step // num_workers, pictures_per_identity // 2
        self._worker, self._num_workers = worker, num_workers
        order = np.argsort(samples.identity, kind="stable")
        self._groups = np.split(order, np.flatnonzero(np.diff(samples.identity[order])) + 1)
        self._eligible = self._find_eligible(tasks)
        self.tasks = tuple(self._eligible)
        self._round = [task for task in self.tasks for _ in range(shares.get(task, 1))]

    def task_of(self, step: int) -> Task:
        """Every task by its share in each round of steps, in an order of the round's own."""
        number, place = divmod(step, len(self._round))
        order = np.random.default_rng([self._seed, 1, number]).permutation(len(self._round))
        return self._round[int(order[place])]

    def num_identities(self, task: Task) -> int:
        """Identities that the task can use."""
        return len(self._eligible[task])

    def draw(self, step: int) -> TaskDraw:
        """This worker's samples of a step."""
        task = self.task_of(step)
        shared = np.random.default_rng([self._seed, 2, step])
        eligible = self._eligible[task]
        total = self._per_worker * self._num_workers
        chosen = shared.choice(len(eligible), total, replace=total > len(eligible))
        own = chosen[self._worker :: self._num_workers]
        rng = np.random.default_rng([self._seed, 3, step, self._worker])
        picked = [self._pick(task, self._groups[eligible[number]], rng) for number in own]
        rows = np.concatenate([np.concatenate([queries, gallery]) for queries, gallery, _ in picked])
        wanted = np.concatenate([np.concatenate([about, gallery]) for _, gallery, about in picked])
        sought = np.concatenate(
            [np.concatenate([q if task == "T2I" else gallery, gallery]) for q, gallery, _ in picked]
        )
        return TaskDraw(task, rows, wanted, sought, np.tile(np.repeat([True, False], self._half), self._per_worker))

    def _find_eligible(self, tasks: Sequence[Task]) -> Mapping[Task, list[int]]:
        """Identities that each task can use; a task with fewer than two is left out, or refused if it was alone."""
        found: dict[Task, list[int]] = {}
        for task in tasks:
            usable = [number for number, group in enumerate(self._groups) if self._can_ask(task, group)]
            if task == "VI":  # where clothes are known, they stay on: to find a person in others is the task of CC
                alike = [number for number in usable if len(self._in_both_spectra(self._groups[number]))]
                usable = alike if len(alike) >= LEAST_IDENTITIES else usable
            if len(usable) >= LEAST_IDENTITIES:
                found[task] = usable
            else:
                logger.warning("task %s is left out: %d identities of the data can be used in it", task, len(usable))
        if not found:
            raise DataError(
                f"no identity of the frames can be used for {', '.join(tasks)}: Trad needs two pictures in the same "
                "clothes, CC and CTCC two sets of clothes, VI an infrared camera, T2I and LI texts. Give other frames."
            )
        return found

    def _can_ask(self, task: Task, group: Rows) -> bool:
        samples = self._samples
        colour = group[~samples.is_infrared[group]]
        if task == "VI":
            return 0 < len(colour) < len(group)
        if task in ("CC", "CTCC"):
            return len(np.unique(samples.clothes[colour])) >= 2
        if task == "T2I":
            return any(samples.texts[row] for row in colour)
        if task == "LI":
            return len(colour) >= 2 and any(samples.has_words(int(row)) for row in colour)
        return len(colour) >= 2 and len(np.unique(samples.clothes[colour])) < len(colour)

    def _pick(self, task: Task, group: Rows, rng: np.random.Generator) -> tuple[Rows, Rows, Rows]:
        """(queries, gallery, what the queries ask for), K/2 rows each, of one identity."""
        samples = self._samples
        infrared = samples.is_infrared[group]
        if task == "VI":
            sides = [group[infrared], group[~infrared]]
            if len(shared := self._in_both_spectra(group)):
                clothes = int(rng.choice(shared))
                sides = [side[samples.clothes[side] == clothes] for side in sides]
            first = int(rng.integers(2))
            queries, gallery = self._some(sides[first], rng), self._some(sides[1 - first], rng)
            return queries, gallery, queries
        colour = group[~infrared]
        if task == "T2I":
            told = np.array([row for row in colour if samples.texts[row]])
            return (queries := self._some(told, rng)), self._some(told, rng), queries
        target = self._target_clothes(task, colour, rng)
        in_target = colour[samples.clothes[colour] == target]
        gallery = self._some(in_target, rng)
        if task == "Trad":
            return (queries := self._some(in_target, rng, apart_from=gallery)), gallery, queries
        if task == "LI":
            return self._some(colour, rng, apart_from=gallery), gallery, self._some(in_target, rng)
        others = self._some(colour[samples.clothes[colour] != target], rng)
        return others, gallery, others if task == "CC" else self._some(in_target, rng)

    def _in_both_spectra(self, group: Rows) -> NDArray[np.int64]:
        """The clothes that an identity was seen in by infrared and by other cameras."""
        clothes, infrared = self._samples.clothes[group], self._samples.is_infrared[group]
        return np.intersect1d(clothes[infrared], clothes[~infrared])

    def _target_clothes(self, task: Task, colour: Rows, rng: np.random.Generator) -> int:
        """The clothes of the gallery pictures: for Trad a set that is seen twice, for LI one that has words."""
        clothes, counts = np.unique(self._samples.clothes[colour], return_counts=True)
        if task == "Trad":
            clothes = clothes[counts >= 2]
        elif task == "LI":
            told = {int(self._samples.clothes[row]) for row in colour if self._samples.has_words(int(row))}
            clothes = np.array(sorted(told))
        return int(rng.choice(clothes))

    def _some(self, rows: Rows, rng: np.random.Generator, *, apart_from: Rows | None = None) -> Rows:
        """K/2 of the rows, without repetition where they suffice; cameras and pictures of `apart_from` come last."""
        order = rng.permutation(rows)
        if apart_from is not None:
            cameras = self._samples.camera
            is_near = np.isin(cameras[order], cameras[apart_from]) + 2.0 * np.isin(order, apart_from)
            order = order[np.argsort(is_near, kind="stable")]
        return np.resize(order, self._half)
