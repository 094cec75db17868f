"""From a step's draw to the tensors of one training step, with augmentation and simulated detections.

Shapes: Q queries, N targets, C close-ups of all targets, A supervised masks. Boxes are xyxy as shares of the frame.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.instruct_reid.instructions import described
from modeling.ps_reid.batches import QueryBatch, TargetBatch
from modeling.ps_reid.instruct_metric import Asked
from modeling.ps_reid.model import PsReid
from modeling.ps_reid.objective import Truth
from modeling.ps_reid.windows import within
from workflows.train.augment import degrade, erase, jitter_boxes, photometric, sample_windows
from workflows.train.sam_pictures import SamPictureMaker, SamPictures, box_jitter
from workflows.train.samples import CROP_MARGIN, Draw, Samples

WINDOW_MARGIN = 0.06
"""How far windows of crops reach beyond the true box on average, as a share of its sides: detectors' boxes are wide."""
MISSED_SHARE = 0.08
"""Persons that the simulated detector does not find."""
FALSE_ALARMS_PER_FRAME = 0.7
MODALITIES = {"both": 0.5, "image": 0.25, "text": 0.25}
CROP_MODALITIES = {"both": 0.4, "image": 0.1, "text": 0.5}  # crops learn from each other as it is
MASKED_FRAMES = 2
BOXED_FRAMES = 4
BOXED_WINDOWS = 32
MASKED_PAIRS = 6


@dataclass(frozen=True)
class Crops:
    """Queries and person crops without a scene (`crop_contrast`)."""

    queries: QueryBatch
    crops: Tensor
    is_same: Tensor


@dataclass(frozen=True)
class Captions:
    """Person crops and what is said of them (`captioning`)."""

    crops: Tensor
    text_ids: Sequence[Tensor]


@dataclass(frozen=True)
class Boxes:
    """Persons to segment by their boxes (`box_prompted_masks`)."""

    pictures: SamPictures
    boxes: Tensor
    """As shares of the square that SAM sees."""


@dataclass(frozen=True)
class Pairs:
    """Every query with every target (`training_step`)."""

    queries: QueryBatch
    targets: TargetBatch
    truth: Truth


class Batcher:
    """Holds the samples and a model's sizes; each task of a step is made from its draw, always the same one."""

    def __init__(self, samples: Samples, model: PsReid, *, seed: int, query_variants: int = 2) -> None:
        self._samples, self._seed, self._variants = samples, seed, query_variants
        self._template = model.template
        vision = model.config.vision
        self._size = (vision.query_height_px, vision.query_width_px)
        self._mean, self._std = (
            torch.tensor(values).view(3, 1, 1)
            for values in (model.vision.config.image_mean, model.vision.config.image_std)
        )
        self._sam = SamPictureMaker(samples, model.config.segmentation)
        self._zooms = model.config.segmentation.zoom is not None
        self._of_frame = samples.persons_of_frame()

    def pairs(self, draw: Draw, step: int) -> Pairs:
        """Every identity's query in its variants, with every drawn frame."""
        rng, generator = self._chance(step, 1)
        persons = np.repeat(draw.queries, self._variants)
        queries = self.queries(persons, rng, generator)
        targets, shown = self.targets(draw.frames, rng, generator)
        identity = self._samples.identity
        same_QC = identity[persons][:, None] == np.where(shown >= 0, identity[shown], -1)
        present = self.present(persons, draw.frames)
        rows = rng.permutation(np.flatnonzero((present >= 0).any(1)))[:MASKED_FRAMES]
        pairs = [(int(r), int(q)) for r in rows for q in np.flatnonzero(present[r] >= 0)][:MASKED_PAIRS]
        jitter = box_jitter(len(pairs), generator)
        return Pairs(queries, targets, self.truth(present, draw.frames, pairs, torch.from_numpy(same_QC), jitter))

    def crops(self, draw: Draw, step: int) -> Crops:
        """The contrast batch."""
        rng, generator = self._chance(step, 2)
        crops, _ = self._close_ups(draw.contrast_crops, generator)
        identity = self._samples.identity
        same = identity[draw.contrast_queries][:, None] == identity[draw.contrast_crops]
        return Crops(
            self.queries(draw.contrast_queries, rng, generator, CROP_MODALITIES), crops, torch.from_numpy(same)
        )

    def captions(self, draw: Draw, step: int) -> Captions | None:
        """Crops of the contrast's queries that have a text; None where none has."""
        _, generator = self._chance(step, 4)
        persons = np.array([p for p in draw.contrast_queries if self._samples.texts[p]], dtype=np.int32)
        if not len(persons):
            return None
        crops, _ = self._close_ups(persons, generator)
        return Captions(crops, [self._template.text_ids(self._samples.texts[p]) for p in persons])

    def boxes(self, draw: Draw, step: int) -> Boxes:
        """All persons of a few of the drawn frames; where SAM sees windows, a few persons of all the drawn frames."""
        rng, generator = self._chance(step, 3)
        frames = draw.frames[rng.permutation(len(draw.frames))]
        shown = [self._of_frame[frame] for frame in (frames if self._zooms else frames[:BOXED_FRAMES])]
        persons = np.concatenate(shown)
        if self._zooms:
            persons = rng.permutation(persons)[:BOXED_WINDOWS]
        jitter = box_jitter(len(persons), generator)
        pictures = self._sam.pictures(persons, self._samples.frame[persons], jitter)
        return Boxes(pictures, within(self._sam.boxes(persons, jitter), pictures.squares_A4))

    def _chance(self, step: int, task: int) -> tuple[np.random.Generator, torch.Generator]:
        rng = np.random.default_rng([self._seed, task, step])
        return rng, torch.Generator().manual_seed(int(rng.integers(2**62)))

    # ---- queries and targets

    def queries(
        self,
        persons: NDArray[np.int32],
        rng: np.random.Generator,
        generator: torch.Generator,
        modalities: Mapping[str, float] = MODALITIES,
    ) -> QueryBatch:
        """Queries by image, text or both, chosen for each person (modality dropout)."""
        chosen = rng.choice(list(modalities), len(persons), p=list(modalities.values()))
        texts = [self._samples.texts[p] for p in persons]
        has_text = np.array([bool(t) for t in texts])
        has_image = torch.from_numpy((chosen != "text") | ~has_text)
        said = [text if modality != "image" else None for text, modality in zip(texts, chosen, strict=True)]
        pixels, _ = self._crops(persons, generator, jitter=0.08, strength=1.0, erased=0.25)
        return QueryBatch(
            pixels * has_image[:, None, None, None],
            has_image,
            [self._template.text_ids(text) for text in said],
            [Asked(shown, described(text)) for text, shown in zip(said, has_image.tolist(), strict=True)],
        )

    def _close_ups(self, persons: NDArray[np.int32], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self._crops(persons, generator, jitter=0.1, strength=0.7, erased=0.12)

    def _crops(
        self, persons: NDArray[np.int32], generator: torch.Generator, *, jitter: float, strength: float, erased: float
    ) -> tuple[Tensor, Tensor]:
        """Augmented pixels, and the jittered boxes in units of the true box."""
        unit = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(persons), 4)
        boxes = jitter_boxes(unit, generator, amount=jitter)
        sides = (boxes[:, 2:] - boxes[:, :2]) * WINDOW_MARGIN
        wide = torch.cat([boxes[:, :2] - sides, boxes[:, 2:] + sides], dim=1)
        windows = (wide + CROP_MARGIN) / (1 + 2 * CROP_MARGIN)
        stored = torch.from_numpy(self._samples.crops[persons]).permute(0, 3, 1, 2).float() / 255
        flips = torch.rand(len(persons), generator=generator) < 0.5
        pixels = degrade(sample_windows(stored, windows, self._size, flips), generator)
        pixels = erase(photometric(pixels, generator, strength=strength), generator, share=erased)
        return (pixels - self._mean) / self._std, boxes

    def targets(
        self,
        frames: NDArray[np.int32],
        rng: np.random.Generator,
        generator: torch.Generator,
        *,
        at_least_one: bool = False,
    ) -> tuple[TargetBatch, NDArray[np.int32]]:
        """The targets, and which person each close-up shows (-1 for a false alarm).

        `at_least_one`: a detector that would miss everybody in a frame finds the first.
        """
        shown = [p[rng.random(len(p)) >= MISSED_SHARE] for p in (self._of_frame[f] for f in frames)]
        if at_least_one:
            shown = [s if len(s) else self._of_frame[f][:1] for s, f in zip(shown, frames, strict=True)]
        shown = [rng.permutation(p) for p in shown]
        persons = np.concatenate(shown).astype(np.int32)
        owner = np.repeat(np.arange(len(frames)), [len(p) for p in shown])
        pixels, units = self._close_ups(persons, generator)
        truth = torch.from_numpy(self._samples.boxes[persons])
        boxes = truth[:, :2].repeat(1, 2) + units * (truth[:, 2:] - truth[:, :2]).repeat(1, 2)
        false_pixels, false_boxes, false_owner = self._false_alarms(frames, rng)
        owner_C = torch.from_numpy(np.concatenate([owner, false_owner]))
        order = torch.argsort(owner_C, stable=True)
        scenes = torch.from_numpy(self._samples.scenes[frames]).permute(0, 3, 1, 2).float() / 255
        scenes = photometric(scenes, generator, strength=0.6)
        batch = TargetBatch(
            scenes_N3HW=(scenes - self._mean) / self._std,
            close_ups_C3HW=torch.cat([pixels, false_pixels])[order],
            owner_C=owner_C[order],
            boxes_C4=torch.cat([boxes, false_boxes])[order].clamp(0, 1),
        )
        all_persons = np.concatenate([persons, np.full(len(false_owner), -1, dtype=np.int32)])
        return batch, all_persons[order.numpy()]

    def _false_alarms(self, frames: NDArray[np.int32], rng: np.random.Generator) -> tuple[Tensor, Tensor, NDArray]:
        """Person-shaped windows on the background."""
        crops, boxes, owners = [], [], []
        for row, frame in enumerate(frames):
            wide = self._samples.wide[frame]
            height, width = wide.shape[:2]
            for _ in range(rng.poisson(FALSE_ALARMS_PER_FRAME)):
                h = rng.uniform(0.15, 0.6) * height
                w = h * rng.uniform(0.3, 0.55)
                x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
                box = np.array([x / width, y / height, (x + w) / width, (y + h) / height], dtype=np.float32)
                if _overlaps(box, self._samples.boxes[self._of_frame[frame]]):
                    continue
                window = wide[int(y) : int(y + h) + 1, int(x) : int(x + w) + 1]
                crops.append(cv2.resize(window, self._size[::-1], interpolation=cv2.INTER_LINEAR))
                boxes.append(box)
                owners.append(row)
        if not crops:
            return torch.zeros(0, 3, *self._size), torch.zeros(0, 4), np.zeros(0, dtype=np.int64)
        pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        return (pixels - self._mean) / self._std, torch.from_numpy(np.stack(boxes)), np.array(owners)

    # ---- truth

    def present(self, persons: NDArray[np.int32], frames: NDArray[np.int32]) -> NDArray[np.int64]:
        """(N, Q) which person of each frame is the queried one; -1 where none is."""
        identity, present = self._samples.identity, np.full((len(frames), len(persons)), -1, dtype=np.int64)
        for row, frame in enumerate(frames):
            for person in self._of_frame[frame]:
                present[row, identity[persons] == identity[person]] = person
        return present

    def truth(
        self,
        present: NDArray[np.int64],
        frames: NDArray[np.int32],
        mask_pairs: Sequence[tuple[int, int]],
        same_QC: Tensor,
        jitter_A4: Tensor,
        is_supervised: Sequence[bool] | None = None,
    ) -> Truth:
        """Who is where, with the masks of the chosen (target, query) pairs; a pair without a person gets no mask.

        `jitter_A4`: how far off the true box is that the window of each pair is laid around, in sides of the box.
        """
        is_positive = present >= 0
        rows, columns = np.array(mask_pairs, dtype=np.int64).reshape(-1, 2).T
        pictures = self._sam.pictures(present[rows, columns], frames[rows], jitter_A4)
        return Truth(
            is_positive_NQ=torch.from_numpy(is_positive),
            boxes_NQ4=torch.from_numpy(
                np.where(is_positive[..., None], self._samples.boxes[present], 0.0).astype(np.float32)
            ),
            is_same_QC=same_QC,
            mask_pairs_A2=torch.tensor(list(mask_pairs), dtype=torch.long).reshape(-1, 2),
            masks_Ahw=pictures.masks_Ahw,
            sam_pixels_F3HW=pictures.pixels_F3SS,
            picture_A=pictures.picture_A,
            squares_A4=pictures.squares_A4,
            is_supervised_A=None if is_supervised is None else torch.tensor(list(is_supervised), dtype=torch.bool),
        )


def _overlaps(box: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    """Whether any other box shares a fifth of this one."""
    if not len(others):
        return False
    low, high = np.maximum(others[:, :2], box[:2]), np.minimum(others[:, 2:], box[2:])
    shared = np.clip(high - low, 0, None).prod(1)
    return bool((shared > 0.2 * (box[2:] - box[:2]).prod()).any())
