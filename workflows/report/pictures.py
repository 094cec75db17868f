"""From a stored frame to the pictures a page shows: the scene at page size, and a zoom on the person at full detail.

Pure functions over encoded images; no files, no tables. Images are BGR uint8, as OpenCV decodes them.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from modeling.errors import DataError
from workflows.report.outline import BoxXYXY

ImageHWC = npt.NDArray[np.uint8]

SCENE_QUALITY = 82
ZOOM_QUALITY = 88
ZOOM_HEIGHT_PX = 420
"""A zoom taller than this is shrunk; a smaller one keeps its own pixels, the page enlarges it."""


@dataclass(frozen=True)
class Picture:
    """An encoded JPEG and its size in pixels."""

    jpeg: bytes
    width: int
    height: int


def decode(encoded: bytes | None, *, name: str) -> ImageHWC:
    """The pixels of a stored JPEG or PNG; DataError names the frame whose bytes are missing or broken."""
    if not encoded:
        raise DataError(f"{name} has no image bytes")
    image = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{name}: its {len(encoded)} image bytes are not a readable JPEG or PNG")
    return np.asarray(image, dtype=np.uint8)


def scene(image: ImageHWC, longest_px: int) -> Picture:
    """The whole frame, shrunk so that its longer side is at most `longest_px`."""
    return _encoded(_shrunk(image, longest_px / max(image.shape[:2])), SCENE_QUALITY)


def zoom(image: ImageHWC, region_xyxy_px: BoxXYXY) -> Picture:
    """The frame's own pixels in a region of whole pixels."""
    left, top, right, bottom = (int(edge) for edge in region_xyxy_px)
    part = image[top:bottom, left:right]
    if part.size == 0:
        raise DataError(f"the region {region_xyxy_px} holds no pixel of a frame of {image.shape[1]} x {image.shape[0]}")
    return _encoded(_shrunk(part, ZOOM_HEIGHT_PX / part.shape[0]), ZOOM_QUALITY)


def _shrunk(image: ImageHWC, scale: float) -> ImageHWC:
    """The image at a scale below 1, otherwise as it is."""
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _encoded(image: ImageHWC, quality: int) -> Picture:
    done, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV refused to encode an image that it had decoded"
    return Picture(jpeg.tobytes(), image.shape[1], image.shape[0])
