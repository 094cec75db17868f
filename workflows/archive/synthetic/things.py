"""Things that stand in the scene and hide people: lamp posts, trees, bushes, cars, benches, bins, pillars, racks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from workflows.archive.synthetic.camera import Camera
from workflows.archive.synthetic.colours import rgb
from workflows.archive.synthetic.fabric import mottle_field

Picture = NDArray[np.floating[Any]]  # (H, W, 4): linear RGB and coverage
OVERSAMPLED = 2


@dataclass(frozen=True)
class Thing:
    """A picture of a thing and where it stands."""

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.float32]
    corner_xy: tuple[int, int]
    foot_xy: tuple[float, float]
    away_m: float
    half_width_px: float


@dataclass(frozen=True)
class _Kind:
    size_m: Callable[[np.random.Generator], tuple[float, float]]  # width, height
    paint: Callable[[tuple[int, int], np.random.Generator], Picture]


def furnish(camera: Camera) -> list[Thing]:
    """The things of a camera's scene, some in front of where people walk, some among them."""
    rng = np.random.default_rng([camera.seed, 2])
    names = {
        "street": ["lamp", "lamp", "car", "tree", "bush", "bin", "sign", "bollard", "bollard"],
        "plaza": ["bench", "bench", "tree", "tree", "lamp", "bin", "bush", "bollard"],
        "corridor": ["pillar", "pillar", "plant", "bench", "bin", "sign"],
        "shop": ["rack", "rack", "pillar", "plant", "rack", "sign"],
    }[camera.setting]
    far = 1.72 * camera.focal_px / (0.15 * camera.height)
    near = camera.away_at_row(camera.height * 0.97)
    things = []
    for name in names:
        if rng.random() < 0.25:
            continue
        away = float(np.exp(rng.uniform(np.log(near), np.log(far))))
        across = float(rng.uniform(-0.47, 0.47)) * camera.width / camera.focal_px * away
        things.append(_stand(camera, KINDS[name], across, away, rng))
    return sorted((thing for thing in things if thing is not None), key=lambda thing: -thing.away_m)


def _stand(camera: Camera, kind: _Kind, across_m: float, away_m: float, rng: np.random.Generator) -> Thing | None:
    scale = camera.px_per_m(away_m)
    width_m, height_m = kind.size_m(rng)
    width, height = max(3, round(width_m * scale)), max(4, round(height_m * scale))
    if height > 2.5 * camera.height:
        height = int(2.5 * camera.height)
    picture = kind.paint((height * OVERSAMPLED, width * OVERSAMPLED), rng)
    picture[..., :3] *= picture[..., 3:]
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    alpha = picture[..., 3]
    strength = np.float32(camera.light.sky * 0.8 + camera.light.sun * 0.4)
    rgb = np.clip(picture[..., :3] / np.maximum(alpha, 1e-3)[..., None] * strength, 0, 1) ** np.float32(1 / 2.2)
    x, y = camera.ground_to_pixel(across_m, away_m)
    corner = (round(x - width / 2), round(y - height))
    return Thing((rgb * 255).astype(np.uint8), np.ascontiguousarray(alpha), corner, (x, y), away_m, width / 2)


def _canvas(size: tuple[int, int]) -> Picture:
    return np.zeros((*size, 4), np.float32)


def _fill(
    picture: Picture,
    box: tuple[float, float, float, float],
    colour: NDArray[np.floating[Any]] | float,
    *,
    round_sides: bool = False,
) -> None:
    """Fills a box given in fractions of the picture (left, top, right, bottom), shaded like a column if asked."""
    height, width = picture.shape[:2]
    left, top, right, bottom = (
        round(box[0] * width),
        round(box[1] * height),
        round(box[2] * width),
        round(box[3] * height),
    )
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    shade = np.ones(right - left, np.float32)
    if round_sides:
        x = np.linspace(-1, 1, right - left)
        shade = (0.55 + 0.5 * np.sqrt(np.clip(1 - (x - 0.3) ** 2 / 1.7, 0, 1))).astype(np.float32)
    picture[top:bottom, left:right, :3] = np.float32(colour) * shade[None, :, None]
    picture[top:bottom, left:right, 3] = 1


def _dull(rng: np.random.Generator, low: float, high: float, tint: float = 0.1) -> NDArray[np.float32]:
    return np.clip(rng.uniform(low, high) * (1 + rng.normal(0, tint, 3)), 0.01, 0.9).astype(np.float32)


def _lamp(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    picture = _canvas(size)
    colour = _dull(rng, 0.05, 0.45)
    _fill(picture, (0.38, 0.0, 0.62, 1.0), colour, round_sides=True)
    _fill(picture, (0.30, 0.86, 0.70, 1.0), colour * 0.8, round_sides=True)
    if rng.random() < 0.6:
        _fill(picture, (0.0, 0.50, 1.0, 0.58), _dull(rng, 0.1, 0.6, 0.15))
    return picture


def _tree(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    picture = _canvas(size)
    _fill(picture, (0.43, 0.25, 0.57, 1.0), rgb(0.10, 0.075, 0.05), round_sides=True)
    _leaves(picture, rng, (0.5, 0.22), (0.5, 0.24))
    return picture


def _bush(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    picture = _canvas(size)
    _leaves(picture, rng, (0.5, 0.58), (0.5, 0.55))
    return picture


def _plant(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    picture = _canvas(size)
    _fill(picture, (0.3, 0.68, 0.7, 1.0), _dull(rng, 0.05, 0.5, 0.2), round_sides=True)
    _leaves(picture, rng, (0.5, 0.38), (0.48, 0.40))
    return picture


def _leaves(picture: Picture, rng: np.random.Generator, centre: tuple[float, float], half: tuple[float, float]) -> None:
    """A ragged green cloud; centre and half-size are (x, y) in fractions."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width]
    x, y = (columns / width - centre[0]) / half[0], (rows / height - centre[1]) / half[1]
    shift = int(rng.integers(256))
    scale = 90 / max(width, 20)
    noise = mottle_field()[(rows * scale).astype(int) % 256, ((columns * scale).astype(int) + shift) % 256]
    inside = x * x + y * y + 0.18 * noise < 0.86
    fine = mottle_field()[(rows * scale * 3.1).astype(int) % 256, ((columns * scale * 3.1).astype(int) + shift) % 256]
    green = rgb(0.065, 0.11, 0.03) * np.float32(rng.uniform(0.6, 1.6))
    light = np.clip(0.85 - 0.5 * y + 0.35 * fine, 0.2, 2)
    picture[inside, :3] = (light[..., None] * green)[inside]
    picture[inside, 3] = 1


def _car(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    picture = _canvas(size)
    height, width = size
    body = _dull(rng, 0.03, 0.6, 0.12)
    roof = [(0.22, 0.05), (0.68, 0.05), (0.84, 0.45), (0.08, 0.45)]
    hull = [(0.02, 0.42), (0.90, 0.40), (0.99, 0.52), (0.99, 0.86), (0.01, 0.86)]
    glass = [(0.25, 0.10), (0.66, 0.10), (0.78, 0.42), (0.14, 0.42)]
    for outline, colour in ((roof, body * 0.9), (hull, body), (glass, rgb(0.04, 0.05, 0.06))):
        points = np.array([(x * width, y * height) for x, y in outline], np.int32)
        cv2.fillPoly(picture, [points], (*[float(c) for c in colour], 1.0))
    _fill(picture, (0.46, 0.08, 0.48, 0.45), body * 0.8)
    _fill(picture, (0.02, 0.66, 0.985, 0.69), body * 0.6)
    for x in (0.2, 0.8):
        radius = int(0.17 * height)
        cv2.circle(picture, (int(x * width), int(0.83 * height)), radius, (0.015, 0.015, 0.015, 1.0), -1)
        cv2.circle(picture, (int(x * width), int(0.83 * height)), int(0.55 * radius), (0.25, 0.25, 0.26, 1.0), -1)
    return picture


def _bench(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    picture = _canvas(size)
    wood = rgb(0.22, 0.13, 0.07) * np.float32(rng.uniform(0.5, 1.6))
    for top in (0.02, 0.18, 0.34, 0.50):
        _fill(picture, (0.0, top, 1.0, top + 0.12), wood * (1.1 - top * 0.5))
    for left in (0.05, 0.9):
        _fill(picture, (left, 0.0, left + 0.05, 1.0), 0.05)
    return picture


def _bin(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    picture = _canvas(size)
    colour = _dull(rng, 0.05, 0.4, 0.25)
    _fill(picture, (0.05, 0.12, 0.95, 1.0), colour, round_sides=True)
    _fill(picture, (0.0, 0.0, 1.0, 0.14), colour * 0.6, round_sides=True)
    return picture


def _bollard(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    picture = _canvas(size)
    _fill(picture, (0.1, 0.0, 0.9, 1.0), _dull(rng, 0.06, 0.5), round_sides=True)
    _fill(picture, (0.1, 0.1, 0.9, 0.22), _dull(rng, 0.3, 0.8, 0.3), round_sides=True)
    return picture


def _pillar(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    picture = _canvas(size)
    colour = _dull(rng, 0.2, 0.6, 0.04)
    _fill(picture, (0.0, 0.0, 1.0, 1.0), colour, round_sides=bool(rng.random() < 0.5))
    _fill(picture, (0.0, 0.96, 1.0, 1.0), colour * 0.5)
    return picture


def _sign(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    picture = _canvas(size)
    _fill(picture, (0.44, 0.3, 0.56, 1.0), 0.12, round_sides=True)
    _fill(picture, (0.0, 0.0, 1.0, 0.45), _dull(rng, 0.1, 0.6, 0.4))
    _fill(picture, (0.1, 0.1, 0.9, 0.35), _dull(rng, 0.3, 0.9, 0.1))
    return picture


def _rack(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    picture = _canvas(size)
    _fill(picture, (0.0, 0.0, 1.0, 1.0), 0.09)
    for shelf in range(4):
        left, bottom = 0.02, (shelf + 1) / 4 - 0.03
        while left < 0.93:
            wide = float(rng.uniform(0.04, 0.12))
            top = bottom - float(rng.uniform(0.09, 0.19))
            _fill(picture, (left, top, min(left + wide, 0.98), bottom), _dull(rng, 0.04, 0.6, 0.35))
            left += wide + 0.01
        _fill(picture, (0.0, bottom, 1.0, bottom + 0.03), 0.4)
    return picture


def _between(
    width: tuple[float, float], height: tuple[float, float]
) -> Callable[[np.random.Generator], tuple[float, float]]:
    return lambda rng: (float(rng.uniform(*width)), float(rng.uniform(*height)))


KINDS = {
    "lamp": _Kind(_between((0.3, 0.5), (4.5, 7.0)), _lamp),
    "tree": _Kind(_between((2.2, 3.6), (4.5, 7.0)), _tree),
    "bush": _Kind(_between((1.0, 2.4), (0.7, 1.3)), _bush),
    "car": _Kind(_between((4.0, 4.6), (1.4, 1.6)), _car),
    "bench": _Kind(_between((1.4, 2.0), (0.7, 0.9)), _bench),
    "bin": _Kind(_between((0.45, 0.7), (0.8, 1.1)), _bin),
    "bollard": _Kind(_between((0.14, 0.22), (0.8, 1.0)), _bollard),
    "pillar": _Kind(_between((0.35, 0.7), (3.2, 3.6)), _pillar),
    "plant": _Kind(_between((0.6, 1.1), (1.0, 1.8)), _plant),
    "sign": _Kind(_between((0.5, 0.9), (1.2, 2.2)), _sign),
    "rack": _Kind(_between((1.2, 2.4), (1.2, 1.7)), _rack),
}
