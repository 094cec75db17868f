"""A mask's outline as an SVG path, in pixels of the frame, so that a page can draw it crisply at every zoom.

Knows nothing of tables and pages. Path coordinates run through the centres of the mask's border pixels: integers,
to be shifted by half a pixel when drawn.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from modeling.regions import mask_to_box

TOLERANCE_PX = 0.8
"""How far the simplified outline may lie from the mask's border; below a pixel, so no eye sees it."""
SPECK_SHARE = 0.01
"""Parts smaller than this share of the largest part are left out of the drawing (never out of the stored mask)."""
BODY_SHARE = 0.15
"""Parts from this share of the largest on are taken for pieces of the person, split by what stands in front."""

BoxXYXY = tuple[float, float, float, float]


@dataclass(frozen=True)
class Outline:
    """How a mask is drawn."""

    path: str
    """The outline of all parts and holes as one compact SVG path; "" for an empty mask."""
    body_xyxy_px: BoxXYXY | None
    """Around the mask's main parts: what a zoom should hold even where the mask has strays; None for an empty mask."""


def outline(mask_HW: npt.NDArray[np.bool_]) -> Outline:
    """The drawing of a mask."""
    contours, areas = _contours(mask_HW)
    if not contours:
        return Outline("", None)
    largest = max(areas)
    drawn = [contour for contour, area in zip(contours, areas, strict=True) if area >= SPECK_SHARE * largest]
    path = "".join(_closed_path(cv2.approxPolyDP(contour, TOLERANCE_PX, closed=True)[:, 0]) for contour in drawn)
    body = [contour for contour, area in zip(contours, areas, strict=True) if area >= BODY_SHARE * largest]
    left, top, width, height = cv2.boundingRect(np.concatenate(body))
    return Outline(path, (float(left), float(top), float(left + width), float(top + height)))


def zoom_region(box_xyxy_px: BoxXYXY, *, width: int, height: int, aspect: float, margin: float = 0.18) -> BoxXYXY:
    """A region of the frame around a box, as near to `aspect` (width / height) as the frame allows.

    The box is widened by `margin` of its size on each side, grown to the aspect, moved inside the frame and cut to it.
    Whole pixels.
    """
    left, top, right, bottom = box_xyxy_px
    box_w, box_h = max(right - left, 1.0) * (1 + 2 * margin), max(bottom - top, 1.0) * (1 + 2 * margin)
    region_w, region_h = max(box_w, box_h * aspect), max(box_h, box_w / aspect)
    x0, x1 = _inside((left + right) / 2, region_w, width)
    y0, y1 = _inside((top + bottom) / 2, region_h, height)
    return x0, y0, x1, y1


def _contours(mask_HW: npt.NDArray[np.bool_]) -> tuple[list[npt.NDArray[np.int32]], list[float]]:
    """The borders of all parts and holes with the areas they enclose in pixels (a lone pixel counts as 1)."""
    box = mask_to_box(mask_HW)
    if box is None:
        return [], []
    left, top, right, bottom = (int(edge) for edge in box)
    inside = np.ascontiguousarray(mask_HW[top:bottom, left:right], dtype=np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    return [np.asarray(c, dtype=np.int32) for c in contours], [max(cv2.contourArea(c), 1.0) for c in contours]


def _inside(centre: float, length: float, limit: int) -> tuple[float, float]:
    """An interval of a length around a centre, moved to lie within [0, limit]; the whole of it when longer."""
    length = min(max(round(length), 1), limit)
    start = min(max(round(centre - length / 2), 0), limit - length)
    return float(start), float(start + length)


def _closed_path(points_N2: npt.NDArray[np.int32]) -> str:
    """`M x y l dx dy ... z`: relative steps, which are short numbers."""
    steps = np.diff(points_N2, axis=0)
    start = f"M{points_N2[0, 0]} {points_N2[0, 1]}"
    return start + ("l" + " ".join(f"{dx} {dy}" for dx, dy in steps) if len(steps) else "h0") + "z"
