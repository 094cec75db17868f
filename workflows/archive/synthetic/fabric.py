"""Cloth: patterns that follow the body, creases, and the paint of plain surfaces. Colours here are linear RGB."""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from workflows.archive.synthetic.colours import Shade, linear
from workflows.archive.synthetic.surface import Array, Paint

NOISE_SIZE = 256


@lru_cache(maxsize=1)
def crease_field() -> Array:
    """(256, 256, 2) slopes of a tiling crumpled surface; its first axis runs along a limb, so creases run across."""
    rng = np.random.default_rng(20)
    height = np.zeros((NOISE_SIZE, NOISE_SIZE))
    for across, along, weight in ((22, 12, 0.8), (10, 6, 0.4), (34, 34, 1.0), (4, 3, 0.12)):
        noise = np.tile(rng.standard_normal((NOISE_SIZE, NOISE_SIZE)), (3, 3))
        blurred = cv2.GaussianBlur(noise, (0, 0), sigmaX=across, sigmaY=along)
        tile = blurred[NOISE_SIZE : 2 * NOISE_SIZE, NOISE_SIZE : 2 * NOISE_SIZE]
        height += weight * tile / tile.std() * min(across, along)
    rows, columns = np.mgrid[0:NOISE_SIZE, 0:NOISE_SIZE]
    height = height[rows, (columns + np.rint(12 * np.sin(rows * 2 * np.pi / NOISE_SIZE)).astype(int)) % NOISE_SIZE]
    slopes = np.stack(np.gradient(np.pad(height, 1, mode="wrap")), axis=-1)[1:-1, 1:-1]
    return (slopes / slopes.std()).astype(np.float32)


@lru_cache(maxsize=1)
def mottle_field() -> Array:
    """(256, 256) tiling weave and wear of a cloth, mean 0, deviation 1."""
    rng = np.random.default_rng(21)
    total = np.zeros((NOISE_SIZE, NOISE_SIZE))
    for sigma, weight in ((1.0, 0.5), (5.0, 0.5), (20.0, 0.8)):
        noise = np.tile(rng.standard_normal((NOISE_SIZE, NOISE_SIZE)), (3, 3))
        tile = cv2.GaussianBlur(noise, (0, 0), sigma)[NOISE_SIZE : 2 * NOISE_SIZE, NOISE_SIZE : 2 * NOISE_SIZE]
        total += weight * tile / tile.std()
    return (total / total.std()).astype(np.float32)


def tile_index(metres: Array, period_m: float, offset: int) -> NDArray[np.int64]:
    """Index into a noise tile at a place on the cloth."""
    return ((metres * (NOISE_SIZE / period_m)).astype(np.int64) + offset) % NOISE_SIZE


def plain(shade: Shade) -> Paint:
    """One colour all over."""
    colour = linear(shade)
    return lambda angle, _length: np.broadcast_to(colour, (len(angle), 3))


def soft_step(x: Array, width: float) -> Array:
    """0 below 0, 1 above `width`, smooth between."""
    t = np.clip(x / width, 0, 1)
    return t * t * (3 - 2 * t)


def mix(base_P3: Array, other: Array, share_P: NDArray[Any]) -> Array:
    """`other` over `base` with a share in [0, 1] per pixel."""
    return base_P3 + (other - base_P3) * share_P[:, None].astype(np.float32)


def pattern_share(kind: str, across: Array, length: Array, period_m: float) -> Array:
    """Share of the accent colour at places of a cloth; `across` and `length` in metres on it."""
    if kind == "horizontal stripes":
        return _wave(length, period_m, 0.42)
    if kind == "vertical stripes":
        return _wave(across, period_m * 0.8, 0.38)
    if kind == "checks":
        return (_wave(length, period_m, 0.42) + _wave(across, period_m, 0.42)) / 2
    if kind == "dots":
        row = np.floor(length / period_m)
        x = (across / period_m + 0.5 * (row % 2)) % 1 - 0.5
        y = (length / period_m) % 1 - 0.5
        return 1 - soft_step(np.sqrt(x * x + y * y) - 0.26, 0.08)
    return np.zeros_like(across)


def _wave(x: Array, period: float, share: float) -> Array:
    """Bands of width share * period with soft edges."""
    position = np.abs((x / period) % 1 - 0.5) * 2
    return 1 - soft_step(position - share, 0.12)
