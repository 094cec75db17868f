"""From a step's draw to the tensors of one training step, with the augmentation of §V-B and more.

Shapes: B samples; H W pixels of the model's pictures.
"""

import numpy as np
import torch

from modeling.instruct_reid.attributes import COLOURED, PASSING, attribute_labels, describe_attributes, some_attributes
from modeling.instruct_reid.instructions import Instruction, draw_sentence
from modeling.instruct_reid.irm import Irm
from modeling.instruct_reid.objective import IrmBatch
from workflows.train.augment import degrade, erase, photometric, sample_windows
from workflows.train.irm_config import ClassesBy
from workflows.train.irm_sampler import Rows, TaskDraw
from workflows.train.irm_samples import ReidSamples
from workflows.train.samples import CROP_MARGIN

INSIDE = CROP_MARGIN / (1 + 2 * CROP_MARGIN)
"""Where the box begins in a stored crop, as a share of its sides."""

SEEN_SHARE, PARTIAL_SHARE = 0.2, 0.3
"""Descriptions of LI that are the picture's own text, and those that leave some of the attributes out."""


ACROSS_SPECTRA_COLOURLESS = 0.5
"""Crops of VI that lose their colours, which no infrared picture has: what is left is what both spectra show."""


class ReidBatcher:
    """Holds the samples and the model's sizes; a batch follows from the draw, the seed and the step."""

    def __init__(
        self, samples: ReidSamples, irm: Irm, *, seed: int, augment_strength: float = 0.0, is_plain: bool = False,
        crop_jitter: float = 0.12, erased_share: float = 0.35, classes: ClassesBy = "identity",
    ) -> None:  # fmt: skip
        """`augment_strength` scales changes of light and sharpness; 0 leaves cropping, flipping and erasing.

        `is_plain`: pictures as they are, for an evaluation.
        """
        self._samples, self._seed, self._strength, self._is_plain = samples, seed, augment_strength, is_plain
        self._jitter, self._erased_share = crop_jitter / (1 + 2 * CROP_MARGIN), erased_share
        self._classes = samples.classes(classes)
        self._encoder, image = irm.instruction, irm.config.image
        self._size = (image.height_px, image.width_px)
        self._mean, self._std = (torch.tensor(values).view(3, 1, 1) for values in (image.mean, image.std))

    def batch(self, draw: TaskDraw, step: int, worker: int = 0) -> IrmBatch:
        """Augmented crops with an instruction each."""
        rng = np.random.default_rng([self._seed, 4, step, worker])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        instructions = [
            self._instruction(draw, place, rng) for place in range(len(draw.rows))
        ]  # fmt: skip
        return IrmBatch(
            task=draw.task,
            pixels=self._pixels(draw, generator),
            instructions=self._encoder.prepare(instructions),
            is_query=torch.from_numpy(draw.is_query),
            identity=torch.from_numpy(self._classes[draw.sought]),
            shown=self._labels(draw.rows),
            wanted=self._labels(draw.wanted, but=PASSING if draw.task == "CC" else frozenset()),
        )

    def _labels(self, rows: Rows, *, but: frozenset[str] = frozenset()) -> torch.Tensor:
        """(B, A) attributes of the wearers; colours are unknown in infrared, and so is what `but` names."""
        samples = self._samples
        labels = [
            attribute_labels(
                samples.attributes.get(int(samples.clothes[row]), {}),
                but=but | COLOURED if samples.is_infrared[row] else but,
            )
            for row in rows
        ]
        return torch.tensor(labels)

    def _instruction(self, draw: TaskDraw, place: int, rng: np.random.Generator) -> Instruction:
        """A sentence of the pool, a picture of the wanted clothes, or a description of the wanted person."""
        samples, wanted = self._samples, int(draw.wanted[place])
        clothes = int(samples.clothes[wanted])
        if draw.task == "CTCC":
            is_template = draw.is_query[place] and clothes in samples.pictures
            return Instruction(image=samples.pictures[clothes] if is_template else samples.upper_clothes(wanted))
        if draw.task == "T2I":
            return Instruction(text=samples.texts[wanted])
        if draw.task == "LI":
            return Instruction(text=self._description(wanted, rng))
        return draw_sentence(draw.task, rng)

    def _description(self, row: int, rng: np.random.Generator) -> str:
        """All attributes of the wearer, or some of them, or what was written of the picture: as people describe."""
        seen, known = self._samples.texts[row], self._samples.attributes.get(int(self._samples.clothes[row]))
        kind = rng.random()
        if not known or (seen and kind < SEEN_SHARE):
            return seen
        return describe_attributes(some_attributes(known, rng) if kind > 1 - PARTIAL_SHARE else known, rng)

    def _pixels(self, draw: TaskDraw, generator: torch.Generator) -> torch.Tensor:
        crops = torch.from_numpy(self._samples.crops[draw.rows]).permute(0, 3, 1, 2).float() / 255
        count = len(crops)
        if self._is_plain:
            window = torch.tensor([INSIDE, INSIDE, 1 - INSIDE, 1 - INSIDE]).expand(count, 4)
            return (sample_windows(crops, window, self._size, torch.zeros(count, dtype=torch.bool)) - self._mean) / (
                self._std
            )
        low = INSIDE + self._jitter * (2 * torch.rand(count, 2, generator=generator) - 1)
        high = 1 - INSIDE + self._jitter * (2 * torch.rand(count, 2, generator=generator) - 1)
        flips = torch.rand(count, generator=generator) < 0.5
        pixels = sample_windows(crops, torch.cat([low, high], dim=1), self._size, flips)
        if self._strength > 0:
            share = ACROSS_SPECTRA_COLOURLESS if draw.task == "VI" else None
            pixels = photometric(pixels, generator, strength=self._strength, colourless_share=share)
            pixels = degrade(pixels, generator, strength=self._strength)
        return (erase(pixels, generator, share=self._erased_share) - self._mean) / self._std
