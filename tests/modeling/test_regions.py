"""Boxes, crops and run-length masks: equal to pycocotools byte for byte, exact at the frame's edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from modeling.errors import DataError
from modeling.regions import (
    box_area,
    box_iou,
    box_xywh_to_xyxy,
    box_xyxy_to_xywh,
    clip_box,
    crop,
    mask_to_box,
    mask_to_rle,
    rle_to_mask,
)

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))
BOX = st.tuples(st.integers(-30, 30), st.integers(-30, 30), st.integers(0, 40), st.integers(0, 40))
BOXES_XYWH = st.lists(BOX, min_size=0, max_size=6).map(lambda boxes: np.array(boxes, dtype=np.float64).reshape(-1, 4))


@settings(deadline=None, max_examples=200)
@given(MASKS)
def test_rle_equals_pycocotools_and_comes_back(mask: np.ndarray) -> None:
    rle = mask_to_rle(mask)
    assert rle == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    back = rle_to_mask(rle)
    assert back.dtype == np.bool_
    assert np.array_equal(back, mask)
    assert np.array_equal(rle_to_mask({**rle, "counts": bytes(rle["counts"]).decode("ascii")}), mask)


@pytest.mark.parametrize("value", [False, True])
def test_rle_of_a_large_uniform_mask(value: bool) -> None:
    mask = np.full((1080, 1920), value)
    assert np.array_equal(rle_to_mask(mask_to_rle(mask)), mask)


def test_rle_of_a_view_and_of_other_types() -> None:
    mask = np.random.default_rng(0).random((30, 20)) < 0.5
    assert mask_to_rle(mask.T) == mask_to_rle(np.ascontiguousarray(mask.T))
    assert mask_to_rle(mask.astype(np.uint8) * 255) == mask_to_rle(mask)


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [4, 4], "counts": b""},
        {"size": [4, 4], "counts": b"0"},
        {"size": [2, 2], "counts": mask_to_rle(np.ones((4, 4), dtype=bool))["counts"]},
        {"size": [9, 9], "counts": mask_to_rle(np.ones((4, 4), dtype=bool))["counts"]},
        {"size": [4, 4], "counts": b"\xff\xff"},
        {"size": [4, 4], "counts": b"PPPPPPPPPPPPPPPPPPPP"},
        {"size": [4, 4], "counts": [0, 16]},
        {"size": [4], "counts": b"0@"},
        {"counts": b"0@"},
    ],
)
def test_a_damaged_rle_is_refused(rle: dict) -> None:
    with pytest.raises(DataError, match="RLE"):
        rle_to_mask(rle)


def test_a_mask_with_channels_is_refused() -> None:
    with pytest.raises(DataError, match="two axes"):
        mask_to_rle(np.ones((2, 2, 1), dtype=bool))


@settings(deadline=None)
@given(MASKS)
def test_mask_to_box_is_tight(mask: np.ndarray) -> None:
    box = mask_to_box(mask)
    if not mask.any():
        assert box is None
        return
    assert box is not None
    x0, y0, x1, y1 = box.astype(int)
    assert mask[y0:y1, x0:x1].sum() == mask.sum()
    for edge in (mask[y0, x0:x1], mask[y1 - 1, x0:x1], mask[y0:y1, x0], mask[y0:y1, x1 - 1]):
        assert edge.any()
    assert np.array_equal(box_xyxy_to_xywh(box), coco_mask.toBbox(mask_to_rle(mask)))


@settings(deadline=None)
@given(BOXES_XYWH, BOXES_XYWH)
def test_iou_equals_pycocotools(first: np.ndarray, second: np.ndarray) -> None:
    found = box_iou(box_xywh_to_xyxy(first), box_xywh_to_xyxy(second))
    assert found.shape == (len(first), len(second))
    if found.size:
        expected = np.array(coco_mask.iou(first, second, [0] * len(second)))
        both_empty = (box_area(box_xywh_to_xyxy(first))[:, None] + box_area(box_xywh_to_xyxy(second))) == 0
        np.testing.assert_allclose(found, np.where(both_empty, 0, expected), atol=1e-12)


def test_box_conversions_are_inverse_and_keep_the_float_type() -> None:
    boxes = np.array([[1.5, 2, 3, 4], [-1, -2, 5, 6]], dtype=np.float32)
    assert box_xywh_to_xyxy(boxes).tolist() == [[1.5, 2, 4.5, 6], [-1, -2, 4, 4]]
    assert np.array_equal(box_xyxy_to_xywh(box_xywh_to_xyxy(boxes)), boxes)
    assert box_xywh_to_xyxy(boxes).dtype == np.float32
    assert box_xywh_to_xyxy([1, 2, 3, 4]).tolist() == [1, 2, 4, 6]
    assert box_xywh_to_xyxy([]).shape == (0, 4)
    with pytest.raises(DataError, match="four numbers"):
        box_xywh_to_xyxy([[1, 2, 3]])


def test_clip_box() -> None:
    assert clip_box([[-5, -5, 30, 8], [40, 2, 50, 4]], height=10, width=20).tolist() == [[0, 0, 20, 8], [20, 2, 20, 4]]


def test_crop_takes_every_pixel_that_the_box_touches() -> None:
    image = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    assert np.array_equal(crop(image, [2, 3, 6, 9]), image[3:9, 2:6])
    assert np.array_equal(crop(image, [2.4, 3.6, 5.1, 8.2]), image[3:9, 2:6])
    assert np.array_equal(crop(image, [-4, -4, 400, 400]), image)
    assert np.array_equal(crop(image, [8, 4, 12, 6], margin=0.5), image[3:7, 6:14])
    taken = crop(image, [0, 0, 20, 10])
    taken[:] = 0
    assert image.any()


@pytest.mark.parametrize("box", [[20, 0, 25, 5], [-9, 0, 0, 5], [3, 3, 3, 8], [6, 3, 4, 8]])
def test_crop_refuses_a_box_without_pixels(box: list[int]) -> None:
    with pytest.raises(DataError, match="no pixel inside"):
        crop(np.zeros((10, 20, 3), dtype=np.uint8), box, margin=0.0)
