"""Draws one person: skeleton, garments, light, and out comes a picture with soft edges.

The figure is rendered larger than asked and averaged down, so that its outline covers pixels in part, as a lens does.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from workflows.archive.synthetic.body import Pose, pose_skeleton
from workflows.archive.synthetic.colours import rgb
from workflows.archive.synthetic.fabric import crease_field, mottle_field, tile_index
from workflows.archive.synthetic.garments import clothe, upper_garment
from workflows.archive.synthetic.head import carried, head_and_hair
from workflows.archive.synthetic.surface import Samples, Tube, splat
from workflows.archive.synthetic.taxonomy import NO_ITEM, Identity

__all__ = ["Figure", "Light", "Pose", "draw_person", "draw_upper_garment"]


@dataclass(frozen=True)
class Light:
    """Light in the view frame (right, up, toward the camera): one direction for sun or lamps, and the sky around."""

    direction: tuple[float, float, float] = (0.4, 0.8, 0.45)
    sun: float = 0.5  # strength of the directed light
    sky: float = 0.6  # strength of the light from all around
    ground: float = 0.30  # share of it that comes back from the ground
    sun_colour: tuple[float, float, float] = (1.0, 0.97, 0.92)
    sky_colour: tuple[float, float, float] = (0.95, 0.98, 1.04)


@dataclass(frozen=True)
class Figure:
    """A drawn person: H x W picture, its coverage, and where the ground under the pelvis lies in it."""

    rgb: NDArray[np.uint8]  # (H, W, 3) sRGB
    alpha: NDArray[np.float32]  # (H, W) in [0, 1]
    foot_xy_px: tuple[float, float]


def draw_person(
    identity: Identity, pose: Pose, *, height_px: float, light: Light | None = None,
    offset_xy_px: tuple[float, float] = (0.0, 0.0),
) -> Figure:  # fmt: skip
    """The person at a stature of `height_px` pixels, shifted by a fraction of a pixel for smooth motion."""
    skeleton = pose_skeleton(identity.look, identity.attributes.gender, pose)
    tubes = clothe(identity, skeleton) + head_and_hair(identity, skeleton) + carried(identity, skeleton)
    return _draw(tubes, identity, pose, height_px, light or Light(), offset_xy_px)


def draw_upper_garment(identity: Identity, *, height_px: float) -> Figure:
    """What the person wears above the waist, alone and from the front, as a shop shows it; sized as on the person."""
    pose = Pose(stride=0.0, elevation_deg=0.0)
    empty = replace(identity, attributes=replace(identity.attributes, bag=NO_ITEM))
    skeleton = pose_skeleton(identity.look, identity.attributes.gender, pose)
    return _draw(upper_garment(empty, skeleton), empty, pose, height_px, Light(sun=0.4, sky=0.75), (0.0, 0.0))


def _draw(
    tubes: list[Tube], identity: Identity, pose: Pose, height_px: float, light: Light,
    offset_xy_px: tuple[float, float],
) -> Figure:  # fmt: skip
    factor = 3.0 if height_px < 70 else 2.0 if height_px < 220 else 1.5
    factor = max(1.0, min(factor, 420 / height_px))
    view = _view(pose)
    margin = 0.62 * height_px
    width, height = int(2 * margin) // 2 * 2, int(1.30 * height_px) + 4
    foot = (width / 2 + offset_xy_px[0], height - 0.16 * height_px - 2 + offset_xy_px[1])
    size = (round(height * factor), round(width * factor))
    scale = (size[1] / width, size[0] / height)
    samples = splat(
        tubes, view, px_per_m=scale[1] * height_px / identity.look.height_m, size_hw=size,
        origin_xy=(foot[0] * scale[0], foot[1] * scale[1]),
    )  # fmt: skip
    colour = _shade(tubes, samples, light, identity.look.texture_seed)
    canvas = np.zeros((size[0] * size[1], 4), np.float32)
    canvas[samples.pixel_P, :3] = colour
    canvas[samples.pixel_P, 3] = 1.0
    small = cv2.resize(canvas.reshape(*size, 4), (width, height), interpolation=cv2.INTER_AREA)
    return _cropped(small, foot)


def _view(pose: Pose) -> NDArray[np.float64]:
    """Rotation from the body frame to the view frame."""
    heading, pitch = np.radians(pose.heading_deg), np.radians(pose.elevation_deg)
    forward = np.array(
        [np.sin(heading), -np.cos(heading)]
    )  # on the ground: to the picture's right, away from the camera
    right = np.array([forward[1], -forward[0]])
    ground = np.array([[right[0], forward[0], 0.0], [right[1], forward[1], 0.0], [0.0, 0.0, 1.0]])
    tilt = np.array([[1, 0, 0], [0, np.sin(pitch), np.cos(pitch)], [0, -np.cos(pitch), np.sin(pitch)]])
    return tilt @ ground


def _shade(tubes: list[Tube], samples: Samples, light: Light, seed: int) -> NDArray[np.float32]:
    """Linear RGB of every covered pixel."""
    colour = np.empty((len(samples.pixel_P), 3), np.float32)
    normal = samples.normal_P3.copy()
    gloss = np.zeros(len(samples.pixel_P), np.float32)
    for number, tube in enumerate(tubes):
        at = slice(samples.edges[number], samples.edges[number + 1])
        if at.start == at.stop:
            continue
        angle, length = samples.angle_P[at], samples.length_P[at]
        across = angle * np.float32(max(tube.half_width_K.max(), 0.05))
        paint = tube.paint(angle, length)
        if tube.folds:
            offset = (seed + 37 * number) % 251
            row = tile_index(length, tube.fold_scale_m * 8, offset)
            column = tile_index(across, tube.fold_scale_m * 8, offset * 3)
            normal[at, 1:] += np.float32(tube.folds) * crease_field()[row, column]
            paint = paint * (1 + np.float32(0.06) * mottle_field()[row, column])[:, None]
        if tube.ribs_m:
            wave = np.sin(length * np.float32(2 * np.pi / tube.ribs_m))
            normal[at, 1] += 0.55 * wave
            paint = paint * (1 - 0.45 * np.clip(np.abs(wave) ** 0.3, 0, 1)[:, None] * 0 - 0.35 * (wave > 0.93)[:, None])
        colour[at] = paint
        gloss[at] = tube.gloss
    normal /= np.sqrt((normal * normal).sum(1, keepdims=True))
    return _lit(colour, normal, gloss, light)


def _lit(
    colour: NDArray[np.float32], normal: NDArray[np.float32], gloss: NDArray[np.float32], light: Light
) -> NDArray[np.float32]:
    direction = np.asarray(light.direction, np.float32)
    direction = direction / np.linalg.norm(direction)
    facing = np.clip(normal @ direction, 0, None)
    up = normal[:, 1] * 0.5 + 0.5
    around = np.float32(light.sky) * (light.ground + (1 - light.ground) * up) * (0.72 + 0.28 * normal[:, 2])
    energy = around[:, None] * rgb(*light.sky_colour)
    energy += (np.float32(light.sun) * facing)[:, None] * rgb(*light.sun_colour)
    shine = np.clip(2 * facing * normal[:, 2] - direction[2], 0, None) ** 6
    return colour * energy + (0.02 * (1 - normal[:, 2]) ** 2 + gloss * shine * light.sun)[:, None] * np.float32(0.5)


def _cropped(canvas: NDArray[np.float32], foot: tuple[float, float]) -> Figure:
    """Cuts the empty margin off and turns linear light into sRGB."""
    alpha = canvas[..., 3]
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    part, alpha = canvas[top:bottom, left:right, :3], np.ascontiguousarray(alpha[top:bottom, left:right])
    rgb = np.clip(part / np.maximum(alpha, 1e-4)[..., None], 0, 1) ** np.float32(1 / 2.2)
    return Figure((rgb * 255 + 0.5).astype(np.uint8), alpha, (foot[0] - float(left), foot[1] - float(top)))
