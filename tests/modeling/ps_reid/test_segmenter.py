"""Masks in the frame's own pixels, from windows around the boxes and from the whole frame."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modeling.ps_reid.segmenter import PROMPTS_PER_BATCH, Segmenter
from modeling.ps_reid.windows import Window
from modeling.types import MaskPrompt
from tests.modeling.ps_reid.small_model import FRAME_HEIGHT, FRAME_WIDTH, picture, small_config, small_model

ZOOM = 1.5
SHAPES = {
    "inside": (60, 30, 80, 70),
    "at the left edge": (0, 20, 14, 60),
    "in the bottom right corner": (140, 50, 160, 90),
    "as high as the frame": (70, 0, 110, 90),
}
"""Bright rectangles, xyxy in pixels of the frame."""


class BrightPixels(nn.Module):
    """Stands where SAM would: a mask is what is bright, at a quarter of the input's size."""

    def __init__(self, zoom: float | None) -> None:
        super().__init__()
        self.zoom, self.image_size = zoom, 160
        self.anchor = nn.Parameter(torch.zeros(1))
        self.boxes: list[Tensor] = []

    def image_embeddings(self, pixels_N3HW: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(pixels_N3HW.mean(1), 2) - 0.5

    def mask_logits(self, embeddings: Tensor, prompts_PE: Tensor, boxes_P4: Tensor) -> Tensor:
        self.boxes.append(boxes_P4)
        return embeddings.expand(len(prompts_PE), -1, -1)


def prompt(box: tuple[float, ...], seed: int = 0) -> MaskPrompt:
    embedding = np.random.default_rng(seed).normal(size=32).astype(np.float32)
    return MaskPrompt(embedding, np.array(box, dtype=np.float32))


@pytest.mark.parametrize("zoom", [ZOOM, None])
@pytest.mark.parametrize("box", SHAPES.values(), ids=SHAPES.keys())
def test_a_mask_lies_where_the_person_is(box: tuple[int, ...], zoom: float | None) -> None:
    frame = np.zeros((FRAME_HEIGHT, FRAME_WIDTH, 3), dtype=np.uint8)
    truth = np.zeros((FRAME_HEIGHT, FRAME_WIDTH), dtype=bool)
    truth[box[1] : box[3], box[0] : box[2]] = True
    frame[truth] = 255
    sam = BrightPixels(zoom)
    mask = Segmenter(sam).masks(frame, [prompt(box)])[0]  # type: ignore[arg-type]
    assert (mask & truth).sum() / (mask | truth).sum() > 0.95
    side = 160 if zoom is None else Window.around(np.array(box, dtype=np.float32), zoom).side
    sides = (sam.boxes[0][0, 2:] - sam.boxes[0][0, :2]) * side
    np.testing.assert_allclose(sides, [box[2] - box[0], box[3] - box[1]], rtol=1e-4)


@pytest.fixture(scope="module")
def zoomed() -> Segmenter:
    return Segmenter(small_model(small_config(zoom=ZOOM)).segmentation)


def test_several_masks_are_those_of_one_at_a_time(zoomed: Segmenter) -> None:
    frame, rng = picture(0, FRAME_HEIGHT, FRAME_WIDTH), np.random.default_rng(1)
    corners = rng.uniform(0, [130, 60], (PROMPTS_PER_BATCH + 3, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 40, corners.shape)], axis=1)
    prompts = [prompt(tuple(box), seed) for seed, box in enumerate(boxes)]
    masks = zoomed.masks(frame, prompts)
    assert masks.shape == (len(prompts), FRAME_HEIGHT, FRAME_WIDTH) and masks.any(axis=(1, 2)).sum() > 5
    alone = np.concatenate([zoomed.masks(frame, [one]) for one in prompts])
    assert (masks != alone).mean() < 1e-4  # a logit at 0 may round either way
    for mask, box in zip(masks, boxes, strict=True):
        left, top, right, bottom = Window.around(box.astype(np.float32), ZOOM * 1.2).box_xyxy_px.astype(int)
        mask[max(top, 0) : bottom, max(left, 0) : right] = False
        assert not mask.any(), "outside its window all is background"


@pytest.mark.parametrize(
    "box",
    [(40, 40, 40, 40), (40.2, 40.2, 40.4, 40.5), (-30, -20, 10, 15), (150, 80, 400, 300), (500, 500, 510, 530)],
)
def test_no_box_is_too_odd(zoomed: Segmenter, box: tuple[float, ...]) -> None:
    masks = zoomed.masks(picture(0, FRAME_HEIGHT, FRAME_WIDTH), [prompt(box), prompt((0, 0, 160, 90))])
    assert masks.shape == (2, FRAME_HEIGHT, FRAME_WIDTH)


def test_a_box_without_a_pointer_is_enough(zoomed: Segmenter) -> None:
    """As recall decides it: prompts of width 0."""
    frame, box = picture(0, FRAME_HEIGHT, FRAME_WIDTH), np.array([60, 30, 80, 70], dtype=np.float32)
    (mask,) = zoomed.masks(frame, [MaskPrompt(np.zeros(0, dtype=np.float32), box)])
    (by_zeros,) = zoomed.masks(frame, [MaskPrompt(np.zeros(32, dtype=np.float32), box)])
    np.testing.assert_array_equal(mask, by_zeros)


def test_without_prompts_there_are_no_masks(zoomed: Segmenter) -> None:
    assert zoomed.masks(picture(0, FRAME_HEIGHT, FRAME_WIDTH), []).shape == (0, FRAME_HEIGHT, FRAME_WIDTH)
