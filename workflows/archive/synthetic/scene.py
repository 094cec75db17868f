"""One frame of an invented camera: background, shadows, persons and things in depth order, and the truth about them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from workflows.archive.synthetic.background import paint_background, paint_light
from workflows.archive.synthetic.camera import Camera, Sensor, expose, sample_camera
from workflows.archive.synthetic.figure import Figure, Light, Pose, draw_person
from workflows.archive.synthetic.shadows import contact_shadow, sun_shadow
from workflows.archive.synthetic.taxonomy import Identity
from workflows.archive.synthetic.things import Thing, furnish

__all__ = ["Camera", "PersonTruth", "Placed", "RenderedFrame", "Scene", "Sensor", "render_frame", "sample_camera"]

NOBODY, A_THING = -1, -2
LAMP_OF_AN_INFRARED_CAMERA = Light(direction=(0.1, 0.25, 1.0), sun=0.75, sky=0.30, ground=0.5)
# Bands of a figure from top (0) to sole (1) with what is seen in them, and how tall a figure must be for that.
BANDS = {
    "hair": (0.0, 0.14, 30), "face": (0.02, 0.15, 60), "hat": (0.0, 0.12, 40), "upper": (0.20, 0.46, 25),
    "lower": (0.56, 0.88, 25), "shoes": (0.93, 1.0, 50), "bag": (0.20, 0.62, 40), "build": (0.15, 0.90, 40),
}  # fmt: skip
SEEN_SHARE = 0.5


@dataclass(frozen=True)
class Placed:
    """A person somewhere on the ground of a camera."""

    identity: Identity
    key: str  # who it is, handed through to the truth
    across_m: float
    away_m: float
    heading_deg: float  # 0 walks along the view toward the camera, 90 to the picture's right
    phase: float = 0.0
    stride: float = 1.0
    speed: float = 0.0  # m/s, for motion blur


@dataclass(frozen=True)
class PersonTruth:
    """What can be seen of one placed person."""

    placed: Placed
    box_xyxy_px: tuple[int, int, int, int]  # tight around the visible pixels
    mask_HW: NDArray[np.bool_]  # visible pixels of the full frame
    visibility: float  # visible share of the whole figure, in [0, 1]
    visible_parts: frozenset[str]  # for `describe`


@dataclass(frozen=True)
class RenderedFrame:
    image: NDArray[np.uint8]  # (H, W, 3) RGB
    persons: tuple[PersonTruth, ...]


@dataclass(frozen=True)
class _Drawn:
    placed: Placed
    figure: Figure
    corner_xy: tuple[int, int]
    foot_xy: tuple[float, float]


class Scene:
    """A camera with its background painted and its things set up once."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.background = paint_background(camera)
        self.light_HW = paint_light(camera)
        self.things = furnish(camera)
        for thing in self.things:
            contact_shadow(self.background, camera, thing.foot_xy, thing.away_m, thing.half_width_px)

    def render(self, placed: Sequence[Placed], seed: int) -> RenderedFrame:
        """The frame with these persons; `seed` decides only the sensor's noise."""
        camera = self.camera
        canvas = self.background.copy()
        owner = np.full(canvas.shape[:2], NOBODY, np.int16)
        drawn = [self._draw(person) for person in placed]
        for one in drawn:
            away, scale = one.placed.away_m, camera.px_per_m(one.placed.away_m)
            sun_shadow(canvas, camera, one.figure.alpha, one.figure.foot_xy_px, one.foot_xy, away)
            contact_shadow(canvas, camera, one.foot_xy, away, 0.38 * scale)
        layers: list[tuple[float, int, _Drawn | Thing]] = [
            (one.placed.away_m, number, one) for number, one in enumerate(drawn)
        ]
        layers += [(thing.away_m, A_THING, thing) for thing in self.things]
        for _, number, layer in sorted(layers, key=lambda item: -item[0]):
            picture = layer.figure if isinstance(layer, _Drawn) else layer
            _composite(canvas, owner, picture.rgb, picture.alpha, layer.corner_xy, number)
        image = expose(canvas, camera.sensor, np.random.default_rng(seed))
        truths = (_truth(one, owner, number) for number, one in enumerate(drawn))
        return RenderedFrame(image, tuple(truth for truth in truths if truth is not None))

    def _draw(self, person: Placed) -> _Drawn:
        camera = self.camera
        x, y = camera.ground_to_pixel(person.across_m, person.away_m)
        left, top = int(np.floor(x)), int(np.floor(y))
        bearing = float(np.degrees(np.arctan2(person.across_m, person.away_m)))
        pose = Pose(person.phase, person.heading_deg + bearing, person.stride, camera.elevation_deg(person.away_m))
        is_infrared = camera.sensor.is_infrared
        scale = camera.px_per_m(person.away_m)
        figure = draw_person(
            infrared_look(person.identity) if is_infrared else person.identity, pose,
            height_px=person.identity.look.height_m * scale,
            light=LAMP_OF_AN_INFRARED_CAMERA if is_infrared else camera.light, offset_xy_px=(x - left, y - top),
        )  # fmt: skip
        shift_px = abs(person.speed * np.sin(np.radians(person.heading_deg))) * scale * camera.sensor.shutter_s
        row, column = min(max(top, 0), camera.height - 1), min(max(left, 0), camera.width - 1)
        figure = _blur_motion(_lit_by(figure, float(self.light_HW[row, column])), float(shift_px))
        corner = (round(x - figure.foot_xy_px[0]), round(y - figure.foot_xy_px[1]))
        return _Drawn(person, figure, corner, (x, y))


def render_frame(camera: Camera, placed: Sequence[Placed], seed: int) -> RenderedFrame:
    """One frame without keeping the background; use `Scene` for many frames of a camera."""
    return Scene(camera).render(placed, seed)


@lru_cache(maxsize=2048)
def infrared_look(identity: Identity) -> Identity:
    """The identity as near infrared shows it: cloth reflects by its fibre and dye, hardly by its visible colour."""
    rng = np.random.default_rng(identity.look.texture_seed)
    changed: dict[str, Any] = {}
    for name in ("upper", "accent", "inner", "lower", "shoes", "hat", "bag"):
        seen = float(np.dot(getattr(identity.look, name), (0.45, 0.35, 0.20)))
        grey = float(np.clip(0.45 * seen + rng.uniform(0.08, 0.55), 0.06, 0.95))
        changed[name] = (grey, grey, grey)
    skin = 0.55 + 0.35 * float(np.mean(identity.look.skin))
    hair = 0.10 + 0.5 * float(np.mean(identity.look.hair))
    return replace(identity, look=replace(identity.look, skin=(skin,) * 3, hair=(hair,) * 3, **changed))


def _lit_by(figure: Figure, strength: float) -> Figure:
    """The figure in the light of the place where it stands; `strength` is linear."""
    levels = np.arange(256) * strength ** (1 / 2.2)
    return replace(figure, rgb=np.asarray(cv2.LUT(figure.rgb, np.clip(levels, 0, 255).astype(np.uint8)), np.uint8))


def _blur_motion(figure: Figure, shift_px: float) -> Figure:
    """Smears a figure sideways over the time that the shutter is open."""
    length = round(shift_px) | 1
    if length < 3:
        return figure
    half = length // 2
    alpha = cv2.copyMakeBorder(figure.alpha, 0, 0, half, half, cv2.BORDER_CONSTANT)
    rgb = cv2.copyMakeBorder(figure.rgb, 0, 0, half, half, cv2.BORDER_REPLICATE).astype(np.float32)
    weighted = cv2.blur(rgb * alpha[..., None], (length, 1), borderType=cv2.BORDER_CONSTANT)
    smeared = cv2.blur(alpha, (length, 1), borderType=cv2.BORDER_CONSTANT)
    rgb = np.clip(weighted / np.maximum(smeared, 1e-3)[..., None], 0, 255).astype(np.uint8)
    return Figure(rgb, smeared, (figure.foot_xy_px[0] + half, figure.foot_xy_px[1]))


def _composite(
    canvas: NDArray[np.uint8], owner: NDArray[np.int16], rgb: NDArray[np.uint8], alpha: NDArray[np.float32],
    corner: tuple[int, int], number: int,
) -> None:  # fmt: skip
    left, top = corner
    height, width = alpha.shape
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + width, canvas.shape[1]), min(top + height, canvas.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    share = alpha[y0 - top : y1 - top, x0 - left : x1 - left]
    colour = rgb[y0 - top : y1 - top, x0 - left : x1 - left]
    under = canvas[y0:y1, x0:x1]
    canvas[y0:y1, x0:x1] = (under + (colour.astype(np.float32) - under) * share[..., None] + 0.5).astype(np.uint8)
    owner[y0:y1, x0:x1][share > 0.5] = number


def _truth(drawn: _Drawn, owner: NDArray[np.int16], number: int) -> PersonTruth | None:
    """Mask, box, visibility and visible parts; None for a person of whom no pixel is seen."""
    whole = drawn.figure.alpha > 0.5
    left, top = drawn.corner_xy
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + whole.shape[1], owner.shape[1]), min(top + whole.shape[0], owner.shape[0])
    if x0 >= x1 or y0 >= y1:
        return None
    seen = np.zeros_like(whole)
    seen[y0 - top : y1 - top, x0 - left : x1 - left] = owner[y0:y1, x0:x1] == number
    if not seen.any():
        return None
    mask = np.zeros(owner.shape, bool)
    mask[y0:y1, x0:x1] = seen[y0 - top : y1 - top, x0 - left : x1 - left]
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    visibility = float(seen.sum() / whole.sum())
    return PersonTruth(
        drawn.placed, (x, y, x + width, y + height), mask, visibility, _visible_parts(whole, seen, drawn.placed)
    )


def _visible_parts(whole: NDArray[np.bool_], seen: NDArray[np.bool_], placed: Placed) -> frozenset[str]:
    height = len(whole)
    parts = set()
    for name, (start, stop, least_px) in BANDS.items():
        band = slice(int(start * height), max(int(stop * height), int(start * height) + 1))
        if height >= least_px and seen[band].sum() >= SEEN_SHARE * max(whole[band].sum(), 1):
            parts.add(name)
    if np.cos(np.radians(placed.heading_deg)) < 0.1:  # turned away
        parts.discard("face")
    return frozenset(parts)
