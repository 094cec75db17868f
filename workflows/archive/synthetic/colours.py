"""Colour names and the exact shades behind them.

A name ("navy") is what a witness says and what a text query holds; a shade is what the cloth really has, so that two
persons in navy still differ. Shades are sRGB triples in [0, 1].
"""

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shade = tuple[float, float, float]


@dataclass(frozen=True)
class ShadeRange:
    """The box in HSV that one colour name covers: hue in degrees (may run below 0), saturation and value in [0, 1]."""

    hue_deg: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]

    def sample(self, rng: np.random.Generator) -> Shade:
        hue = rng.uniform(*self.hue_deg) % 360 / 360
        red, green, blue = colorsys.hsv_to_rgb(hue, rng.uniform(*self.saturation), rng.uniform(*self.value))
        return (red, green, blue)


CLOTH: Mapping[str, ShadeRange] = {
    "black": ShadeRange((200, 400), (0.0, 0.22), (0.05, 0.15)),
    "grey": ShadeRange((180, 420), (0.0, 0.12), (0.28, 0.52)),
    "white": ShadeRange((20, 240), (0.0, 0.07), (0.78, 0.95)),
    "navy": ShadeRange((214, 238), (0.40, 0.72), (0.14, 0.27)),
    "blue": ShadeRange((206, 230), (0.30, 0.64), (0.30, 0.54)),
    "light blue": ShadeRange((202, 220), (0.14, 0.34), (0.60, 0.82)),
    "red": ShadeRange((350, 367), (0.52, 0.80), (0.42, 0.70)),
    "maroon": ShadeRange((343, 364), (0.45, 0.72), (0.20, 0.33)),
    "brown": ShadeRange((14, 30), (0.32, 0.62), (0.20, 0.42)),
    "beige": ShadeRange((28, 44), (0.14, 0.34), (0.60, 0.82)),
    "green": ShadeRange((105, 160), (0.22, 0.52), (0.24, 0.46)),
    "olive": ShadeRange((55, 88), (0.28, 0.52), (0.22, 0.38)),
    "yellow": ShadeRange((42, 54), (0.42, 0.75), (0.66, 0.86)),
    "orange": ShadeRange((18, 30), (0.56, 0.82), (0.62, 0.82)),
    "pink": ShadeRange((325, 352), (0.22, 0.50), (0.68, 0.88)),
    "purple": ShadeRange((265, 300), (0.28, 0.58), (0.26, 0.48)),
}

HAIR: Mapping[str, ShadeRange] = {
    "black": ShadeRange((10, 40), (0.05, 0.35), (0.05, 0.12)),
    "brown": ShadeRange((16, 30), (0.40, 0.62), (0.16, 0.32)),
    "blond": ShadeRange((34, 46), (0.32, 0.55), (0.55, 0.78)),
    "grey": ShadeRange((20, 60), (0.0, 0.10), (0.45, 0.72)),
    "red": ShadeRange((12, 22), (0.60, 0.80), (0.38, 0.55)),
}

SKIN = (
    ShadeRange((16, 26), (0.26, 0.38), (0.82, 0.93)),
    ShadeRange((18, 27), (0.36, 0.48), (0.68, 0.80)),
    ShadeRange((18, 26), (0.46, 0.58), (0.48, 0.62)),
    ShadeRange((16, 24), (0.50, 0.62), (0.28, 0.42)),
)


def linear(shade: Shade) -> NDArray[np.float32]:
    """sRGB to linear light, (3,)."""
    return np.asarray(shade, np.float32) ** np.float32(2.2)


def rgb(red: float, green: float, blue: float) -> NDArray[np.float32]:
    """A colour in linear light, (3,)."""
    return np.array([red, green, blue], np.float32)


def choose(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """One key of `weights`, drawn in proportion to its weight."""
    names = list(weights)
    shares = np.array([weights[name] for name in names])
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]
