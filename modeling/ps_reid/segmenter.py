"""Masks of accepted pairs: SAM sees the frame once for all of them, or for each a window around its box.

Shapes: N prompts, B of them in a block; H, W = frame height and width, S = a window's side in pixels; E prompt width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.backbones.sam import SamPreprocess
from modeling.ps_reid.checkpoint import load_segmentation
from modeling.ps_reid.segmentation import SegmentationModule
from modeling.ps_reid.windows import Window, within
from modeling.regions import clip_box
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
        masks_NHW = np.zeros((len(prompts), height, width), dtype=bool)
        draw = self._draw_on_frame if self._module.zoom is None else self._draw_on_windows
        if prompts:
            with torch.inference_mode():
                draw(image, prompts, masks_NHW)
        return masks_NHW

    def _draw_on_frame(self, image: ImageHWC, prompts: Sequence[MaskPrompt], masks_NHW: NDArray[np.bool_]) -> None:
        """All masks from one embedding of the whole frame."""
        pixels, (place,) = self._preprocess([image])
        embedding = self._embeddings(pixels)
        square_14 = torch.from_numpy(place.boxes_to_frame([0, 0, place.image_size, place.image_size]))[None]
        for block in _blocks(len(prompts)):
            logits = self._logits(embedding, prompts[block], _boxes(prompts[block]), square_14)
            masks_NHW[block] = place.masks_to_frame(logits) > 0

    def _draw_on_windows(self, image: ImageHWC, prompts: Sequence[MaskPrompt], masks_NHW: NDArray[np.bool_]) -> None:
        """Each mask from a window around its box, as far as that lies in the frame; background outside of it."""
        assert self._module.zoom is not None
        height, width = image.shape[:2]
        for block in _blocks(len(prompts)):
            boxes_B4 = torch.from_numpy(clip_box(_boxes(prompts[block]).numpy(), height=height, width=width))
            windows = [Window.around(box, self._module.zoom) for box in boxes_B4.numpy()]
            pixels, places = self._preprocess([window.cut(image) for window in windows])
            squares_B4 = torch.from_numpy(np.stack([window.box_xyxy_px for window in windows]))
            logits = self._logits(self._embeddings(pixels), prompts[block], boxes_B4, squares_B4)
            for row, (window, place) in enumerate(zip(windows, places, strict=True)):
                mask_SS = (place.masks_to_frame(logits[row : row + 1])[0] > 0).numpy()
                window.paste(mask_SS, masks_NHW[block.start + row])

    def _embeddings(self, pixels_B3SS: Tensor) -> Tensor:
        return self._module.image_embeddings(pixels_B3SS.to(next(self._module.parameters()).device))

    def _logits(
        self, embeddings_BEhw: Tensor, prompts: Sequence[MaskPrompt], boxes_B4: Tensor, squares_B4: Tensor
    ) -> Tensor:
        """(B, h, w) on the CPU; boxes and the squares that SAM sees are in pixels of the frame."""
        device = embeddings_BEhw.device
        states_BE = torch.from_numpy(np.stack([p.embedding for p in prompts])).float().to(device)
        shares_B4 = within(boxes_B4, squares_B4).to(device)
        return self._module.mask_logits(embeddings_BEhw, states_BE, shares_B4).float().cpu()


def _boxes(prompts: Sequence[MaskPrompt]) -> Tensor:
    """(B, 4), in pixels of the frame."""
    return torch.from_numpy(np.stack([p.box_xyxy_px for p in prompts])).float()


def _blocks(count: int) -> list[slice]:
    return [slice(start, min(start + PROMPTS_PER_BATCH, count)) for start in range(0, count, PROMPTS_PER_BATCH)]
