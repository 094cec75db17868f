"""Masks of accepted pairs: one SAM image embedding per frame, one decoder pass per block of prompts."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from modeling.backbones.sam import SamPreprocess
from modeling.ps_reid.checkpoint import load_segmentation
from modeling.ps_reid.segmentation import SegmentationModule
from modeling.types import ImageHWC, MaskPrompt

PROMPTS_PER_BATCH = 16


class Segmenter:
    """Holds SAM; takes a frame and the judge's prompts, gives full-frame masks."""

    def __init__(self, module: SegmentationModule) -> None:
        self._module = module
        self._preprocess = SamPreprocess(module.image_size)

    @classmethod
    def load(cls, model: str, *, device: str = "cpu") -> "Segmenter":
        """The segmenter of a saved PS-ReID model; its language model is not loaded."""
        return cls(load_segmentation(model, device=device))

    def masks(self, image: ImageHWC, prompts: Sequence[MaskPrompt]) -> NDArray[np.bool_]:
        """(N, H, W) masks in the frame's own pixels, one per prompt, in order."""
        height, width = image.shape[:2]
        if not prompts:
            return np.zeros((0, height, width), dtype=bool)
        device = next(self._module.parameters()).device
        with torch.inference_mode():
            pixels, (geometry,) = self._preprocess([image])
            embedding = self._module.image_embeddings(pixels.to(device))
            share = torch.tensor([width, height, width, height], dtype=torch.float32)
            boxes = torch.from_numpy(np.stack([p.box_xyxy_px for p in prompts])).float() / share
            states = torch.from_numpy(np.stack([p.embedding for p in prompts])).float()
            content = (geometry.scaled_height, geometry.scaled_width)
            blocks = []
            for start in range(0, len(prompts), PROMPTS_PER_BATCH):
                block = slice(start, start + PROMPTS_PER_BATCH)
                logits = self._module.mask_logits(embedding, states[block].to(device), boxes[block].to(device), content)
                blocks.append((geometry.masks_to_frame(logits.float().cpu()) > 0).numpy())
        return np.concatenate(blocks)
