"""A frame's JPEG made from the decoder's planes shows what the one made through BGR shows."""

import av
import cv2
import numpy as np
import pytest

from workflows.ingest.images import is_infrared
from workflows.ingest.video_picture import Converter, VideoPicture

FULL_RANGE = 2
BT709 = 1


def decoded(image_bgr: np.ndarray, format: str = "yuv420p", **fields: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(image_bgr, format="bgr24").reformat(format=format)
    for name, value in fields.items():
        setattr(frame, name, value)
    return frame


def smooth_picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([60 + 120 * x / width, 200 - 150 * y / height, 40 + 100 * (x + y) / (width + height)], -1).astype(
        np.uint8
    )


def from_jpeg(data) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("size_hw", [(96, 128), (97, 131)])
@pytest.mark.parametrize("format", ["yuv420p", "yuvj420p"])
def test_planes_and_bgr_give_the_same_picture(size_hw, format):
    picture = VideoPicture(decoded(smooth_picture(*size_hw), format), Converter())
    assert picture.planes is not None and picture.size_hw == size_hw
    shown = from_jpeg(picture.jpeg(95)).astype(int)
    difference = np.abs(shown - picture.bgr.astype(int))
    assert shown.shape == (*size_hw, 3)
    assert difference.mean() < 1.5 and difference.max() <= 12


@pytest.mark.parametrize(
    "frame", [decoded(smooth_picture(64, 64), "yuv444p"), decoded(smooth_picture(64, 64), colorspace=BT709)]
)
def test_other_kinds_go_through_bgr(frame):
    picture = VideoPicture(frame, Converter())
    assert picture.planes is None
    assert np.abs(from_jpeg(picture.jpeg(95)).astype(int) - picture.bgr.astype(int)).mean() < 1.5


@pytest.mark.parametrize(
    ("level", "chroma", "expected"), [(90, 128, True), (90, 150, False), (20, 128, False)], ids=["grey", "red", "black"]
)
def test_infrared_is_told_from_planes_as_from_pixels(level, chroma, expected):
    planes = np.full((96, 64), 128, np.uint8)
    planes[:64] = level
    planes[80:] = chroma
    picture = VideoPicture(av.VideoFrame.from_ndarray(planes, format="yuv420p"), Converter())
    assert picture.planes is not None
    assert picture.is_infrared == is_infrared(picture.bgr) == expected
