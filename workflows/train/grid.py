"""One process's share of a batch as tensors: all queries, its own targets, their truth.

Every query and every target is augmented by chance of its own, from the seed, the batch's number and its place in the
batch. So a target looks the same whichever process makes it, and each makes only what it needs.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.ps_reid.batches import QueryBatch, TargetBatch
from modeling.ps_reid.config import PsReidConfig
from modeling.ps_reid.model import PsReid
from workflows.train.batching import Batcher, Pairs
from workflows.train.catalogue import FrameStore
from workflows.train.draws import BatchDraw
from workflows.train.sam_pictures import box_jitter
from workflows.train.samples import Samples, add_frame, no_windows

QUERY, TARGET, WINDOW = 21, 22, 23  # kinds of chance
MASKED_PAIRS_PER_FRAME = 3


class GridMaker:
    """Makes shares of batches for one model's sizes."""

    def __init__(self, store: FrameStore, model: PsReid, *, seed: int) -> None:
        self._store, self._model, self._seed = store, model, seed
        self._numbers = {name: number for number, name in enumerate(store.catalogue.names)}

    def share(self, draw: BatchDraw, batch: int, rank: int, workers: int) -> Pairs:
        """What process `rank` of `workers` computes of batch number `batch`."""
        places = draw.share(rank, workers)
        own_frames = draw.frames[places]
        local = _LocalFrames(self._store, self._numbers, self._model.config)
        persons = np.array([local.person(person) for person in draw.queries], dtype=np.int32)
        frames = np.array([local.frame(int(frame)) for frame in own_frames], dtype=np.int32)
        samples = local.samples()
        batcher = Batcher(samples, self._model, seed=self._seed)
        queries = [self._query(batcher, batch, slot, person) for slot, person in enumerate(persons)]
        targets, shown = self._targets(batcher, batch, places, frames)
        same_QC = samples.identity[persons][:, None] == np.where(shown >= 0, samples.identity[shown], -1)
        present = batcher.present(persons, frames)
        pairs, counts = _mask_pairs(present, places, draw, workers)
        jitter = [self._window_jitter(batch, int(places[row]), query) for row, query in pairs]
        truth = batcher.truth(present, frames, pairs, torch.from_numpy(same_QC), torch.cat(jitter), counts)
        return Pairs(_stack_queries(queries), targets, truth)

    def _query(self, batcher: Batcher, batch: int, slot: int, person: np.int32) -> QueryBatch:
        return batcher.queries(np.array([person]), *self._chance(QUERY, batch, slot))

    def _targets(
        self, batcher: Batcher, batch: int, places: NDArray[np.int64], frames: NDArray[np.int32]
    ) -> tuple[TargetBatch, NDArray[np.int32]]:
        made = [
            batcher.targets(frames[row : row + 1], *self._chance(TARGET, batch, int(place)), at_least_one=True)
            for row, place in enumerate(places)
        ]
        owners = [torch.full_like(batch_of_one.owner_C, row) for row, (batch_of_one, _) in enumerate(made)]
        targets = TargetBatch(
            scenes_N3HW=torch.cat([t.scenes_N3HW for t, _ in made]),
            close_ups_C3HW=torch.cat([t.close_ups_C3HW for t, _ in made]),
            owner_C=torch.cat(owners),
            boxes_C4=torch.cat([t.boxes_C4 for t, _ in made]),
        )
        return targets, np.concatenate([shown for _, shown in made])

    def _window_jitter(self, batch: int, place: int, query: int) -> Tensor:
        _, generator = self._chance(WINDOW, batch, place, query)
        return box_jitter(1, generator)

    def _chance(self, kind: int, batch: int, *slot: int) -> tuple[np.random.Generator, torch.Generator]:
        rng = np.random.default_rng([self._seed, kind, batch, *slot])
        return rng, torch.Generator().manual_seed(int(rng.integers(2**62)))


class _LocalFrames:
    """The frames that one share needs, decoded once, with numbers of their own."""

    def __init__(self, store: FrameStore, numbers: dict[str, int], config: PsReidConfig) -> None:
        self._store, self._numbers, self._config = store, numbers, config
        self._columns: dict[str, list] = {name: [] for name in Samples.__dataclass_fields__}
        self._frame: dict[int, int] = {}
        self._first_person: dict[int, int] = {}

    def frame(self, frame: int) -> int:
        """The local number of a frame."""
        if frame not in self._frame:
            self._frame[frame] = len(self._columns["scenes"])
            self._first_person[frame] = len(self._columns["crops"])
            self._read(frame)
        return self._frame[frame]

    def person(self, person: int) -> int:
        """The local number of a person."""
        frame = int(self._store.catalogue.frame[person])
        self.frame(frame)
        return self._first_person[frame] + int(person - self._store.catalogue.persons_of(frame)[0])

    def samples(self) -> Samples:
        """Everything read so far."""
        columns = self._columns
        return Samples(
            scenes=np.stack(columns["scenes"]),
            wide=columns["wide"],
            crops=np.stack(columns["crops"]),
            boxes=np.array(columns["boxes"], dtype=np.float32),
            frame=np.array(columns["frame"], dtype=np.int32),
            identity=np.array(columns["identity"], dtype=np.int32),
            camera=np.array(columns["camera"], dtype=np.int32),
            texts=columns["texts"],
            masks=columns["masks"],
            windows=np.stack(columns["windows"]) if columns["windows"] else no_windows(),
            squares=np.array(columns["squares"], dtype=np.float32).reshape(-1, 4),
        )

    def _read(self, frame: int) -> None:
        vision = self._config.vision
        row = self._store.row(frame)
        image = cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR)
        add_frame(
            self._columns, self._numbers, {}, row, cv2.cvtColor(image, cv2.COLOR_BGR2RGB),
            (vision.scene_height_px, vision.scene_width_px), self._config.segmentation, None,
        )  # fmt: skip


def _mask_pairs(
    present: NDArray[np.int64], places: NDArray[np.int64], draw: BatchDraw, workers: int
) -> tuple[list[tuple[int, int]], list[bool]]:
    """(target, query) pairs to segment, and which of them count.

    Every process segments equally many frames, for collectives of sharded weights must meet: one that has fewer of the
    batch's mask frames segments other frames of its own, whose masks do not count.
    """
    pairs, counts = [], []
    for row in range(min(draw.mask_frames_of_a_share(workers), len(places))):
        queried = np.flatnonzero(present[row] >= 0)[:MASKED_PAIRS_PER_FRAME]
        is_real = bool(places[row] < draw.mask_frames and len(queried))
        for query in queried if is_real else [0]:
            pairs.append((row, int(query)))
            counts.append(is_real)
    return pairs, counts


def _stack_queries(queries: list[QueryBatch]) -> QueryBatch:
    return QueryBatch(
        pixels_Q3HW=torch.cat([q.pixels_Q3HW for q in queries]),
        has_image_Q=torch.cat([q.has_image_Q for q in queries]),
        text_ids=[ids for q in queries for ids in q.text_ids],
        asked_Q=[asked for q in queries for asked in q.asked_Q],
    )
