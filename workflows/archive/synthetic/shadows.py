"""Shadows on the ground: a soft dark spot where something stands, and the long shadow of a low sun."""

import cv2
import numpy as np
from numpy.typing import NDArray

from workflows.archive.synthetic.camera import Camera

LONGEST = 1.8  # of the figure's height


def contact_shadow(
    canvas: NDArray[np.uint8], camera: Camera, foot_xy: tuple[float, float], away_m: float, half_px: float
) -> None:
    """Darkens the ground around a foot point, in place."""
    tilt = max(float(np.sin(np.radians(camera.elevation_deg(away_m)))), 0.15)
    half = (max(2, round(half_px)), max(2, round(half_px * tilt)))
    x, y = foot_xy
    x0, y0 = max(int(x) - 2 * half[0], 0), max(int(y) - 2 * half[1], 0)
    x1, y1 = min(int(x) + 2 * half[0] + 1, camera.width), min(int(y) + 2 * half[1] + 1, camera.height)
    if x0 >= x1 or y0 >= y1:
        return
    rows, columns = np.ogrid[y0:y1, x0:x1]
    distance = ((columns - x) / half[0]) ** 2 + ((rows - y) / half[1]) ** 2
    _darken(canvas, (x0, y0), 0.5 * np.exp(-1.5 * distance).astype(np.float32))


def sun_shadow(
    canvas: NDArray[np.uint8], camera: Camera, alpha: NDArray[np.float32], foot_in_figure: tuple[float, float],
    foot_xy: tuple[float, float], away_m: float,
) -> None:  # fmt: skip
    """Lays the figure's outline on the ground, away from the sun, in place."""
    light = camera.light
    if light.sun < 0.3 or camera.setting in ("corridor", "shop"):
        return
    right, up, toward = light.direction
    tilt = float(np.sin(np.radians(camera.elevation_deg(away_m))))
    lean = np.array([-right / up, -toward / up * tilt])
    lean *= min(1.0, LONGEST / max(float(np.hypot(*lean)), 1e-6))
    height, width = alpha.shape
    # A point r above the foot throws its shadow at foot + lean * r; the outline keeps a little of its breadth.
    matrix = np.array([[1.0, -lean[0], 0.0], [0.15 * tilt, -lean[1], 0.0]])
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], float) - foot_in_figure
    reach = corners @ matrix[:, :2].T
    low, high = np.floor(reach.min(0)) - 3, np.ceil(reach.max(0)) + 3
    matrix[:, 2] = -matrix[:, :2] @ np.array(foot_in_figure) - low
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    soft = cv2.GaussianBlur(cv2.warpAffine(alpha, matrix, size), (0, 0), max(0.6, 0.012 * height))
    _darken(canvas, (round(foot_xy[0] + low[0]), round(foot_xy[1] + low[1])), min(0.62, 0.75 * light.sun) * soft)


def _darken(canvas: NDArray[np.uint8], corner: tuple[int, int], amount_HW: NDArray[np.float32]) -> None:
    left, top = corner
    height, width = amount_HW.shape
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, canvas.shape[1]), min(top + height, canvas.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    amount = amount_HW[y0 - top : y1 - top, x0 - left : x1 - left, None]
    canvas[y0:y1, x0:x1] = (canvas[y0:y1, x0:x1] * (1 - amount)).astype(np.uint8)
