"""Outlines drawn back give the mask they came from; zooms hold the person and stay inside the frame."""

import re

import cv2
import numpy as np
import pytest

from modeling.errors import DataError
from workflows.report.outline import Outline, outline, zoom_region
from workflows.report.pictures import decode, scene, zoom


def draw_back(path: str, height: int, width: int) -> np.ndarray:
    """The mask that an SVG path of `M x y l dx dy ... z` pieces encloses (even-odd), its border included."""
    mask = np.zeros((height, width), dtype=np.uint8)
    polygons = []
    for start, steps in re.findall(r"M(-?\d+ -?\d+)(?:l([-\d ]+)|h0)z", path):
        points = np.array([[int(v) for v in start.split()]])
        if steps:
            moves = np.array([int(v) for v in steps.split()]).reshape(-1, 2)
            points = np.concatenate([points, points + np.cumsum(moves, axis=0)])
        polygons.append(points.astype(np.int32))
    cv2.fillPoly(mask, polygons, 1)
    return mask.astype(bool)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return (first & second).sum() / (first | second).sum()


def person(height: int = 200, width: int = 160) -> np.ndarray:
    mask = np.zeros((height, width), dtype=np.uint8)
    cv2.ellipse(mask, (80, 40), (14, 18), 0, 0, 360, 1, -1)
    cv2.fillPoly(
        mask, [np.array([[60, 55], [100, 55], [110, 110], [95, 190], [82, 190], [80, 120], [70, 190], [55, 190]])], 1
    )
    return mask.astype(bool)


def test_an_outline_encloses_its_mask() -> None:
    mask = person()
    assert iou(draw_back(outline(mask).path, *mask.shape), mask) > 0.97


def test_holes_and_separate_parts_are_outlined() -> None:
    mask = np.zeros((90, 90), dtype=bool)
    mask[5:50, 5:50] = True
    mask[20:35, 20:35] = False
    mask[60:80, 60:85] = True
    path = outline(mask).path
    assert path.count("M") == 3
    assert iou(draw_back(path, 90, 90), mask) > 0.95


def test_specks_are_not_drawn_but_a_tiny_mask_is() -> None:
    mask = person()
    clean = outline(mask).path
    mask[2, 2] = True
    assert outline(mask).path == clean
    alone = np.zeros((20, 20), dtype=bool)
    alone[4, 7] = True
    assert outline(alone).path.startswith("M7 4")
    assert outline(np.zeros((20, 20), dtype=bool)) == Outline("", None)


def test_a_zoom_follows_the_body_not_the_strays() -> None:
    """A person split by a lamp post keeps both halves; a far stray of the mask does not widen the zoom."""
    mask = np.zeros((200, 400), dtype=bool)
    mask[40:100, 50:80] = mask[110:160, 50:80] = True
    mask[10:16, 380:386] = True
    assert outline(mask).body_xyxy_px == (50, 40, 80, 160)
    assert outline(mask).path.count("M") == 3


@pytest.mark.parametrize(
    "box", [(0, 0, 10, 30), (300, 200, 320, 240), (100, 50, 140, 160), (0, 0, 320, 240), (5.4, 5.5, 6, 6)]
)
def test_a_zoom_holds_the_box_inside_the_frame(box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = zoom_region(box, width=320, height=240, aspect=0.62)
    assert 0 <= left < right <= 320 and 0 <= top < bottom <= 240
    assert left <= box[0] + 0.5 and right >= box[2] - 0.5 and top <= box[1] + 0.5 and bottom >= box[3] - 0.5
    assert all(edge == int(edge) for edge in (left, top, right, bottom))


def test_a_zoom_in_the_open_has_the_asked_aspect() -> None:
    left, top, right, bottom = zoom_region((500, 300, 540, 420), width=1920, height=1080, aspect=0.62)
    assert (right - left) / (bottom - top) == pytest.approx(0.62, abs=0.02)


def test_pictures_keep_small_frames_and_shrink_large_ones() -> None:
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    assert (scene(image, 960).width, scene(image, 960).height) == (400, 300)
    assert (scene(image, 200).width, scene(image, 200).height) == (200, 150)
    part = zoom(image, (10, 20, 72, 120))
    assert (part.width, part.height) == (62, 100)
    shown = decode(part.jpeg, name="zoom").astype(int)
    assert shown.shape == (100, 62, 3)


@pytest.mark.parametrize("encoded", [None, b"", b"not a picture"])
def test_a_broken_picture_names_its_frame(encoded: bytes | None) -> None:
    with pytest.raises(DataError, match="cam/video#3"):
        decode(encoded, name="frame 'cam/video#3'")
