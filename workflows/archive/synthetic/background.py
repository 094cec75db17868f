"""What a camera looks at when nobody is there: ground, far wall, sky or ceiling, seen in perspective.

Every pixel's ray meets one of three planes: the ground, a wall across the view, or the ceiling. The plane's paint is
asked at that place in metres, so paving, bricks and windows keep their size and run together in the distance.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from workflows.archive.synthetic.camera import Camera
from workflows.archive.synthetic.colours import rgb
from workflows.archive.synthetic.fabric import NOISE_SIZE, mottle_field

Plane = NDArray[np.floating[Any]]
CEILING_M = 3.4


@dataclass(frozen=True)
class _View:
    """For each pixel of the picture: which plane it sees, and where on it (metres)."""

    is_ground: NDArray[np.bool_]
    is_ceiling: NDArray[np.bool_]
    across: Plane  # to the right, on whatever plane
    away: Plane
    up: Plane  # over the ground
    blur_m: Plane  # size of a pixel on the plane: finer detail is not seen


def paint_background(camera: Camera) -> NDArray[np.uint8]:
    """The empty scene, (H, W, 3) RGB, in good light; the sensor comes later."""
    rng = np.random.default_rng([camera.seed, 1])
    indoor = camera.setting in ("corridor", "shop")
    wall_m = 1.72 * camera.focal_px / (0.14 * camera.height) * float(rng.uniform(1.02, 1.5))
    view = _look(camera, wall_m, CEILING_M if indoor else 1e6)
    picture = np.empty((camera.height, camera.width, 3), np.float32)
    ground = {"street": _street, "plaza": _plaza, "corridor": _tiles, "shop": _tiles}[camera.setting](view, rng)
    wall = _shelves(view, rng) if camera.setting == "shop" else _facade(view, rng, indoor=indoor)
    picture[:] = np.where(view.is_ground[..., None], ground, wall)
    if indoor:
        picture = np.where(view.is_ceiling[..., None], _ceiling(view, rng), picture)
    else:
        roof = float(rng.uniform(4, 14))
        picture = np.where((~view.is_ground & (view.up > roof))[..., None], _sky(view, rng), picture)
    strength = camera.light.sky * 0.85 + camera.light.sun * 0.45
    picture *= np.float32(strength) * np.where(view.is_ground, paint_light(camera), 1.0)[..., None]
    return (np.clip(picture, 0, 1) ** np.float32(1 / 2.2) * 255 + 0.5).astype(np.uint8)


def _look(camera: Camera, wall_m: float, ceiling_m: float) -> _View:
    rows, columns = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float32)
    right = (columns - camera.width / 2) / camera.focal_px
    down = (rows - camera.horizon_px) / camera.focal_px
    ground_m = camera.mount_m / np.maximum(down, 1e-4)
    roof_m = (ceiling_m - camera.mount_m) / np.maximum(-down, 1e-4)
    away = np.minimum(np.minimum(ground_m, roof_m), wall_m)
    is_ground, is_ceiling = ground_m < wall_m, roof_m < wall_m
    flat = is_ground | is_ceiling
    blur = away / camera.focal_px * np.where(flat, away / camera.mount_m, 1.0)
    return _View(is_ground, is_ceiling, right * away, away, camera.mount_m - down * away, blur.astype(np.float32))


def _noise(x: Plane, y: Plane, period_m: float, shift: int = 0) -> Plane:
    """Tiling noise on a plane, deviation 1."""
    rows = ((y * (NOISE_SIZE / period_m)).astype(np.int64) + shift * 31) % NOISE_SIZE
    columns = ((x * (NOISE_SIZE / period_m)).astype(np.int64) + shift * 17) % NOISE_SIZE
    return mottle_field()[rows, columns]


def _seam(x: Plane, period: float, width: float, blur: Plane) -> Plane:
    """Thin lines every `period` metres, fading where a pixel is wider than they are."""
    distance = np.abs((x / period) % 1 - 0.5)
    gap = (0.5 - distance) * period
    soft = width + blur
    return np.clip(1 - gap / soft, 0, 1) * np.clip(width / soft * 1.5, 0, 1)


def _tone(rng: np.random.Generator, low: float, high: float, tint: float = 0.06) -> Plane:
    """A dull colour in linear light."""
    grey = rng.uniform(low, high)
    return np.clip(grey * (1 + rng.normal(0, tint, 3)), 0.01, 0.95).astype(np.float32)


def _mixed(base: Plane, other: Plane, share: NDArray[Any]) -> Plane:
    return base + (other - base) * share[..., None].astype(np.float32)


def _asphalt(view: _View, rng: np.random.Generator) -> Plane:
    base = np.broadcast_to(_tone(rng, 0.10, 0.30), (*view.away.shape, 3))
    fade = np.clip(0.05 / view.blur_m, 0.1, 1)
    grain = 0.10 * fade * _noise(view.across, view.away, 2.5, 3) + 0.10 * _noise(view.across, view.away, 24, 5)
    return base * (1 + grain)[..., None]


def _grass(view: _View, rng: np.random.Generator) -> Plane:
    green = rgb(0.09, 0.15, 0.035) * float(rng.uniform(0.7, 1.5))
    fade = np.clip(0.06 / view.blur_m, 0.25, 1)
    rough = 0.22 * fade * _noise(view.across, view.away, 1.7, 7) + 0.16 * _noise(view.across, view.away, 15, 9)
    return np.clip(1 + rough, 0.3, 2)[..., None] * green


def _street(view: _View, rng: np.random.Generator) -> Plane:
    """Road with markings, kerb and a strip of grass or pavement, at an angle to the camera."""
    angle = float(rng.uniform(-0.7, 0.7))
    along = np.cos(angle) * view.across + np.sin(angle) * view.away
    aside = -np.sin(angle) * view.across + np.cos(angle) * view.away
    near = float(np.median(aside[view.is_ground])) if view.is_ground.any() else 10.0
    colour = _asphalt(view, rng)
    paint = rgb(0.62, 0.62, 0.58)
    edge = near + float(rng.uniform(1, 5))
    dash = ((along / 4) % 1 < 0.5) * 1.0
    line = np.clip(1 - np.abs(aside - edge + 3.2) / (0.07 + view.blur_m), 0, 1)
    colour = _mixed(colour, paint, 0.7 * line * (dash if rng.random() < 0.6 else 1.0))
    beyond = aside > edge
    walk = _grass(view, rng) if rng.random() < 0.5 else _paved(view, rng)
    colour = np.where(beyond[..., None], walk, colour)
    kerb = np.clip(1 - np.abs(aside - edge) / (0.10 + view.blur_m), 0, 1)
    colour = _mixed(colour, rgb(0.36, 0.35, 0.33), 0.8 * kerb)
    if rng.random() < 0.5:
        front = aside < edge - float(rng.uniform(5, 8))
        colour = np.where(front[..., None], _grass(view, rng) if rng.random() < 0.5 else _paved(view, rng), colour)
    return colour


def _paved(view: _View, rng: np.random.Generator) -> Plane:
    size = float(rng.uniform(0.3, 1.0))
    base = _asphalt(view, rng) * np.float32(rng.uniform(1.0, 1.7))
    angle = float(rng.uniform(-0.6, 0.6))
    x = np.cos(angle) * view.across + np.sin(angle) * view.away
    y = -np.sin(angle) * view.across + np.cos(angle) * view.away
    slab = mottle_field()[
        (np.floor(y / size).astype(np.int64) * 7) % NOISE_SIZE, (np.floor(x / size).astype(np.int64) * 13) % NOISE_SIZE
    ]
    base = base * (1 + 0.07 * np.clip(size / 6 / view.blur_m, 0, 1) * slab)[..., None]
    seams = np.maximum(_seam(x, size, 0.015, view.blur_m), _seam(y, size, 0.015, view.blur_m))
    return _mixed(base, base * 0.45, seams)


def _plaza(view: _View, rng: np.random.Generator) -> Plane:
    """Paving with bands of another stone."""
    base, band = _paved(view, rng), _paved(view, rng)
    period = float(rng.uniform(4, 8))
    inside = (view.across / period + float(rng.random())) % 1 < float(rng.uniform(0.06, 0.2))
    colour = np.where(inside[..., None], band, base)
    if rng.random() < 0.4:
        centre = (float(rng.uniform(-5, 5)), float(rng.uniform(8, 20)))
        lawn = np.hypot(view.across - centre[0], view.away - centre[1]) < float(rng.uniform(2, 5))
        colour = np.where(lawn[..., None], _grass(view, rng), colour)
    return colour


def _tiles(view: _View, rng: np.random.Generator) -> Plane:
    """A polished floor: tiles or planks, brighter where it mirrors the far wall."""
    base = np.broadcast_to(_tone(rng, 0.18, 0.55, 0.10), (*view.away.shape, 3))
    if rng.random() < 0.35:  # planks
        wood = rgb(0.34, 0.19, 0.09) * np.float32(rng.uniform(0.6, 1.5))
        plank = (np.floor(view.across / 0.14).astype(np.int64) * 29) % NOISE_SIZE
        base = (
            wood
            * (1 + 0.16 * mottle_field()[plank, plank * 3 % NOISE_SIZE] + 0.08 * _noise(view.across * 6, view.away, 3))[
                ..., None
            ]
        )
        seams = _seam(view.across, 0.14, 0.006, view.blur_m)
    else:
        size = float(rng.uniform(0.3, 0.9))
        seams = np.maximum(_seam(view.across, size, 0.012, view.blur_m), _seam(view.away, size, 0.012, view.blur_m))
        base = base * (1 + 0.04 * _noise(view.across, view.away, 5))[..., None]
    shine = np.clip((view.away - view.away.min()) / max(float(np.ptp(view.away)), 1e-3), 0, 1) ** 2
    return _mixed(base, base * 0.55, seams) * (1 + 0.5 * shine)[..., None]


def _facade(view: _View, rng: np.random.Generator, *, indoor: bool) -> Plane:
    """A wall with doors and windows: brick, concrete or plaster."""
    x, z = view.across + float(rng.uniform(0, 50)), view.up
    kind = str(
        rng.choice(["plaster", "plaster", "concrete"] if indoor else ["brick", "brick", "concrete", "plaster", "glass"])
    )
    base = np.broadcast_to(_tone(rng, 0.30, 0.75) if kind == "plaster" else _tone(rng, 0.14, 0.40), (*x.shape, 3))
    if kind == "brick":
        base = rgb(0.26, 0.13, 0.085) * np.float32(rng.uniform(0.6, 1.6)) * np.ones((*x.shape, 1), np.float32)
        rows = _seam(z, 0.075, 0.01, view.blur_m)
        base = _mixed(base, rgb(0.33, 0.3, 0.26), 0.5 * rows)
    base = base * (1 + 0.06 * _noise(x, z, 9, 2) + 0.05 * _noise(x, z, 2, 4))[..., None]
    period, storey = float(rng.uniform(1.8, 4.5)), float(rng.uniform(2.8, 3.6))
    wide, tall = (
        float(rng.uniform(0.45, 0.85)) if kind != "glass" else 0.94,
        float(rng.uniform(0.4, 0.65)) if kind != "glass" else 0.8,
    )
    u, v = (x / period) % 1, (z / storey) % 1
    hole = (np.abs(u - 0.5) < wide / 2) & (np.abs(v - 0.55) < tall / 2)
    if indoor:
        hole = (np.abs(u - 0.5) < 0.5 / period) & (z < 2.1)
    pane = np.floor(x / period).astype(np.int64) * 11 + np.floor(z / storey).astype(np.int64) * 5
    glass = (
        _tone(rng, 0.03, 0.12, 0.12)
        * (1 + 0.6 * np.clip(mottle_field()[pane % NOISE_SIZE, (pane * 3) % NOISE_SIZE], -1.2, 2))[..., None]
    )
    glass = glass + 0.10 * np.clip(_noise(x, z, 14, 6), 0, 2)[..., None] * rgb(0.8, 0.95, 1.1)
    if indoor:
        glass = np.broadcast_to(_tone(rng, 0.12, 0.5, 0.12), glass.shape)
    colour = np.where(hole[..., None], glass, base)
    frame = np.where(hole, np.maximum(_seam(x, period / 2, 0.035, view.blur_m), 0), 0)
    colour = _mixed(colour, _tone(rng, 0.3, 0.8), 0.8 * frame)
    foot = np.clip(1 - z / 0.25, 0, 1)
    return _mixed(colour, colour * 0.6, foot)


def _shelves(view: _View, rng: np.random.Generator) -> Plane:
    """Racks of goods along the far wall."""
    x, z = view.across + 50, view.up
    board = np.maximum(_seam(z, 0.42, 0.03, view.blur_m), _seam(x, 1.3, 0.03, view.blur_m))
    item = np.floor(x / 0.16).astype(np.int64) * 7 + np.floor(z / 0.42).astype(np.int64) * 41
    palette = np.clip(rng.uniform(0.03, 0.6, (64, 1)) * (1 + rng.normal(0, 0.2, (64, 3))), 0.01, 0.9).astype(np.float32)
    height = 0.18 + 0.2 * ((item * 13) % 10) / 10
    goods = np.where(((z % 0.42) < height)[..., None], palette[item % 64], rgb(0.10, 0.10, 0.10))
    colour = _mixed(goods, _tone(rng, 0.3, 0.7), board)
    return np.where((z > 2.3)[..., None], np.broadcast_to(_tone(rng, 0.35, 0.75), colour.shape), colour)


def _ceiling(view: _View, rng: np.random.Generator) -> Plane:
    base = np.broadcast_to(_tone(rng, 0.35, 0.65), (*view.away.shape, 3))
    seams = np.maximum(_seam(view.across, 0.6, 0.02, view.blur_m), _seam(view.away, 0.6, 0.02, view.blur_m))
    lamp = (((view.across / 2.4) % 1) < 0.25) & (((view.away / 3.0) % 1) < 0.4)
    return np.where(lamp[..., None], rgb(1.5, 1.5, 1.45), _mixed(base, base * 0.7, seams))


def _sky(view: _View, rng: np.random.Generator) -> Plane:
    blue = rgb(0.55, 0.66, 0.82) if rng.random() < 0.5 else rgb(0.75, 0.77, 0.8)
    clouds = 0.06 * _noise(view.across, view.up, 60, 8)
    return blue * (1 + clouds)[..., None]


def paint_light(camera: Camera) -> Plane:
    """(H, W) strength of the light on the ground: shadows of buildings and trees outdoors, pools of lamps indoors."""
    rng = np.random.default_rng([camera.seed, 3])
    coarse = rng.standard_normal((5, 8)).astype(np.float32)
    field = cv2.resize(coarse, (camera.width, camera.height), interpolation=cv2.INTER_CUBIC)
    if camera.light.sun > 0.35 and camera.setting in ("street", "plaza"):
        return (1 - 0.45 * np.clip((field - 0.4) * 5, 0, 1)).astype(np.float32)
    return (1 + 0.12 * np.clip(field, -2, 2)).astype(np.float32)
