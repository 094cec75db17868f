"""Queries and targets as tensors: what the processor makes of pictures, boxes and texts, and the model takes in.

Shapes: Q queries, N targets, C close-ups of all targets together, H W pixels, T text tokens.
Boxes are xyxy as shares of the frame's width and height, in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modeling.backbones.clip import VisionEncoder
from modeling.instruct_reid.instructions import asked_of
from modeling.ps_reid.config import PsReidConfig
from modeling.ps_reid.grounding import Metric
from modeling.ps_reid.instruct_metric import Asked, InstructMetric
from modeling.ps_reid.prompt import PromptTemplate
from modeling.regions import crop
from modeling.types import ImageHWC, QueryInput, TargetInput


@dataclass(frozen=True)
class QueryBatch:
    """Q queries. `pixels_Q3HW` is zero where `has_image_Q` is False."""

    pixels_Q3HW: Tensor
    has_image_Q: Tensor
    text_ids: Sequence[Tensor]
    asked_Q: Sequence[Asked] = ()
    """What each asks of an instruct-ReID metric, where the model has one."""

    def to(self, device: torch.device) -> "QueryBatch":
        ids = [t.to(device) for t in self.text_ids]
        return QueryBatch(self.pixels_Q3HW.to(device), self.has_image_Q.to(device), ids, self.asked_Q)


@dataclass(frozen=True)
class TargetBatch:
    """N frames with C close-ups; `owner_C` says whose, in order, best detection first."""

    scenes_N3HW: Tensor
    close_ups_C3HW: Tensor
    owner_C: Tensor
    boxes_C4: Tensor

    def to(self, device: torch.device) -> "TargetBatch":
        return TargetBatch(*(getattr(self, f).to(device) for f in self.__dataclass_fields__))


class Processor:
    """Pictures, boxes and texts to batches, by the sizes of one model's config."""

    def __init__(
        self,
        config: PsReidConfig,
        vision: VisionEncoder,
        template: PromptTemplate,
        metric: Metric | InstructMetric,
    ) -> None:
        """`metric`: the model's; queries are made ready for it too where it is an instruct-ReID model."""
        self._config = config
        self._metric = metric
        self._vision = vision
        self._template = template

    def queries(self, queries: Sequence[QueryInput]) -> QueryBatch:
        """Raises DataError when a query's task needs what it lacks, if the metric knows tasks."""
        pixels = self.crops([q.image for q in queries if q.image is not None])
        has_image = torch.tensor([q.image is not None for q in queries])
        height, width = self._config.vision.query_height_px, self._config.vision.query_width_px
        all_pixels = torch.zeros(len(queries), 3, height, width)
        all_pixels[has_image] = pixels
        text_ids = [self._template.text_ids(q.text) for q in queries]
        return QueryBatch(all_pixels, has_image, text_ids, self._asked(queries))

    def _asked(self, queries: Sequence[QueryInput]) -> list[Asked]:
        if not isinstance(self._metric, InstructMetric):
            return []
        parts = [asked_of(query) for query in queries]
        return [Asked(image is not None, instruction) for image, instruction in parts]

    def crops(self, crops: Sequence[ImageHWC]) -> Tensor:
        """(B, 3, H, W) pixels of person crops at the size of a query picture."""
        vision = self._config.vision
        return self._vision.preprocess(crops, height=vision.query_height_px, width=vision.query_width_px)

    def targets(self, targets: Sequence[TargetInput]) -> TargetBatch:
        vision, close_ups, owners, boxes = self._config.vision, [], [], []
        for row, target in enumerate(targets):
            height, width = target.image.shape[:2]
            kept = np.asarray(target.boxes_xyxy_px, dtype=np.float32).reshape(-1, 4)[: self._config.close_ups]
            close_ups += [crop(target.image, box) for box in kept]  # as query pictures and the index are cut
            owners += [row] * len(kept)
            boxes.append(kept / np.array([width, height, width, height], dtype=np.float32))
        return TargetBatch(
            scenes_N3HW=self._vision.preprocess(
                [t.image for t in targets], height=vision.scene_height_px, width=vision.scene_width_px
            ),
            close_ups_C3HW=self.crops(close_ups),
            owner_C=torch.tensor(owners, dtype=torch.long),
            boxes_C4=torch.from_numpy(np.concatenate(boxes)).clamp(0, 1),
        )
