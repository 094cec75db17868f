"""Tubes to pixels: a small renderer for bodies made of bent tubes, fast enough in plain NumPy.

Every part of a figure is a tube: a line of centres with an oval cross-section that changes along it. Its skin is
sampled densely, each sample keeps where it lies on the part (angle and length, for patterns) and its normal (for
light); the sample nearest to the camera wins its pixel. The paint is asked only about the samples that won.

View frame, metres: right, up and toward the camera. K = control points of a tube, R = rings of all tubes, S = samples
around a ring, N = samples, P = covered pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]
Paint = Callable[[Array, Array], Array]  # (angle in radians, 0 in front; length in metres) -> linear RGB, (P, 3)
Keep = Callable[[Array, Array], NDArray[np.bool_]]  # the same coordinates -> which samples exist

SPACING_PX = 0.72  # between samples, so that hardly a pixel of a surface stays without one
THINNEST_M = 1e-3


@dataclass(frozen=True)
class Tube:
    """One part of a figure in the body frame."""

    centre_K3: Array
    half_width_K: Array  # along `side`
    half_depth_K: Array  # along the front
    paint: Paint
    side: tuple[float, float, float] = (1.0, 0.0, 0.0)
    front_sign: float = 1.0  # 1 for tubes that run upward, -1 for those that run downward or forward
    squareness: float = 1.0  # 1 oval, towards 0 a box
    folds: float = 0.0  # depth of creases
    fold_scale_m: float = 0.11
    ribs_m: float = 0.0  # period of quilted ribs, 0 for none
    keep: Keep | None = None
    gloss: float = 0.0
    is_skin: bool = False


@dataclass(frozen=True)
class Samples:
    """The winning samples of a picture, one per covered pixel, ordered by tube."""

    pixel_P: Indices  # flat index into the picture
    edges: Indices  # samples edges[i]:edges[i + 1] belong to tube i
    normal_P3: Array  # view frame, unit length
    angle_P: Array
    length_P: Array


@dataclass(frozen=True)
class _Rings:
    """The rings of all tubes in the view frame; a sample is centre + sine * side + cosine * front of its ring."""

    centre_R3: Array
    side_R3: Array
    front_R3: Array
    slope_R3: Array  # along the tube, as steep as the skin widens
    length_R: Array  # metres from the tube's start
    start: Indices  # rings start[i]:start[i + 1] belong to tube i
    spokes: Indices  # samples around a ring, by tube


def splat(
    tubes: Sequence[Tube], view_33: NDArray[np.float64], *, px_per_m: float, size_hw: tuple[int, int],
    origin_xy: tuple[float, float],
) -> Samples:  # fmt: skip
    """What the camera sees of the tubes; `origin_xy` is the pixel of the body frame's origin."""
    height, width = size_hw
    rings = _lay_rings(tubes, view_33, px_per_m)
    parts = [_facing(tube, rings, number) for number, tube in enumerate(tubes)]
    position = np.concatenate([position for _, position in parts], axis=1)
    start = np.cumsum([0, *(len(index) for index, _ in parts)])
    column = (position[0] * px_per_m + origin_xy[0]).astype(np.int32)
    row = (origin_xy[1] - position[1] * px_per_m).astype(np.int32)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    low, high = float(position[2].min()), float(position[2].max())
    rank = ((position[2] - low) * (65000 / max(high - low, 1e-6))).astype(np.uint16)
    order = np.argsort(rank, kind="stable")  # radix sort; the nearest sample is written last and wins its pixel
    order = order[inside[order]]
    winner = np.full(height * width, -1, np.int32)
    winner[(row * width + column)[order]] = order
    winner = _close_pinholes(winner.reshape(height, width)).ravel()
    pixel = np.flatnonzero(winner >= 0)
    return _gather(tubes, rings, np.concatenate([index for index, _ in parts]), start, winner[pixel], pixel)


def _lay_rings(tubes: Sequence[Tube], view_33: NDArray[np.float64], px_per_m: float) -> _Rings:
    """Smooth rings through the control points of every tube, all tubes at once because that is what takes time."""
    controls = np.concatenate([np.column_stack([t.centre_K3, t.half_width_K, t.half_depth_K]) for t in tubes])
    counts = np.array([len(tube.centre_K3) for tube in tubes])
    first = np.concatenate([[0], np.cumsum(counts)])
    run = _run_of_controls(controls, first[:-1])
    run_m = run[first[1:] - 1] - run[first[:-1]]
    num_rings = (run_m * (px_per_m / SPACING_PX)).astype(np.int64) + 6
    start = np.concatenate([[0], np.cumsum(num_rings)])
    tube_R = np.repeat(np.arange(len(tubes)), num_rings)
    number_R = np.arange(start[-1]) - start[tube_R]
    wanted = run[first[tube_R]] + run_m[tube_R] * number_R / (num_rings[tube_R] - 1)
    curve = _spline(controls, np.interp(wanted, run, np.arange(len(run))), first[tube_R], first[tube_R + 1] - 1)

    centre, size = curve[:, :3], np.maximum(curve[:, 3:], THINNEST_M)
    before = np.maximum(np.arange(start[-1]) - 1, start[tube_R])
    after = np.minimum(np.arange(start[-1]) + 1, start[tube_R + 1] - 1)
    along, growth = centre[after] - centre[before], (size[after] - size[before]).sum(1) / 2
    step_m = np.maximum(np.sqrt((along * along).sum(1)), 1e-6)
    along /= step_m[:, None]
    side = np.array([tube.side for tube in tubes])[tube_R]
    side = side - (along * side).sum(1, keepdims=True) * along
    side /= np.maximum(np.sqrt((side * side).sum(1, keepdims=True)), 1e-9)
    front = _cross(along, side) * np.array([tube.front_sign for tube in tubes])[tube_R, None]
    slope = np.clip(growth / step_m, -4, 4) / np.sqrt(size[:, 0] * size[:, 1])
    travelled = np.cumsum(step_m / np.maximum(after - before, 1))
    widest = np.maximum.reduceat((size * size).sum(1), start[:-1])
    view = view_33.T.astype(np.float32)
    return _Rings(
        centre_R3=centre.astype(np.float32) @ view,
        side_R3=(side * size[:, :1]).astype(np.float32) @ view,
        front_R3=(front * size[:, 1:]).astype(np.float32) @ view,
        slope_R3=(along * slope[:, None]).astype(np.float32) @ view,
        length_R=(travelled - travelled[start[tube_R]]).astype(np.float32),
        start=start,
        spokes=(np.pi * np.sqrt(2 * widest) * (px_per_m / SPACING_PX)).astype(np.int64) // 8 * 8 + 16,
    )


def _run_of_controls(controls: NDArray[np.float64], first: Indices) -> NDArray[np.float64]:
    """Metres of skin up to each control point of all tubes; a metre from one tube to the next keeps them apart."""
    step = np.diff(controls, axis=0, prepend=controls[:1])
    metres = np.sqrt((step[:, :3] ** 2).sum(1)) + np.abs(step[:, 3:]).max(1) + 1e-6
    metres[first] = 1.0
    return np.cumsum(metres)


def _spline(
    controls: NDArray[np.float64], position_R: NDArray[np.float64], low_R: Indices, high_R: Indices
) -> NDArray[np.float64]:
    """(R, C) Catmull-Rom curves at fractional control numbers; a ring's tube has controls low to high."""
    left = np.clip(position_R.astype(np.int64), low_R, high_R - 1)
    t = (position_R - left)[:, None]
    before, after = controls[np.maximum(left - 1, low_R)], controls[np.minimum(left + 2, high_R)]
    here, there = controls[left], controls[left + 1]
    cubic = 3 * (here - there) + after - before
    square = 2 * before - 5 * here + 4 * there - after
    return here + (t / 2) * (there - before + t * (square + t * cubic))


@lru_cache(maxsize=1024)
def _circle(num_samples: int, squareness: float) -> tuple[Array, Array]:
    """Angles around a ring, and (3, S): ones, sines and cosines; squareness below 1 pushes the oval towards a box."""
    angle = _angle_of(np.arange(num_samples), num_samples)
    sine, cosine = _rounded(np.sin(angle), squareness), _rounded(np.cos(angle), squareness)
    return angle, np.stack([np.ones_like(angle), sine, cosine])


def _angle_of(spoke: Indices, num_samples: Indices | int) -> Array:
    return ((spoke + 0.5) / num_samples * (2 * np.pi) - np.pi).astype(np.float32)


def _rounded(x: Array, squareness: Array | float) -> Array:
    return np.sign(x) * np.abs(x) ** np.float32(squareness)


def _facing(tube: Tube, rings: _Rings, number: int) -> tuple[Indices, Array]:
    """Samples of a tube that the camera may see: flat index ring * spokes + spoke (N,), and position (3, N)."""
    own = slice(rings.start[number], rings.start[number + 1])
    angle, circle = _circle(int(rings.spokes[number]), tube.squareness)
    centre, side, front = rings.centre_R3[own], rings.side_R3[own], rings.front_R3[own]
    axes = np.stack([centre, side, front], axis=2).transpose(1, 0, 2)  # (xyz, rings, terms)
    if tube.keep is None:
        across, ahead = (side * side).sum(1), (front * front).sum(1)
        toward = np.stack([-rings.slope_R3[own, 2], side[:, 2] / across, front[:, 2] / ahead], axis=1)
        index = np.flatnonzero(toward @ circle > 0)
    else:
        length = rings.length_R[own]
        index = np.flatnonzero(tube.keep(np.tile(angle, len(length)), np.repeat(length, len(angle))))
    return index, (axes @ circle).reshape(3, -1)[:, index]


def _gather(
    tubes: Sequence[Tube], rings: _Rings, index_N: Indices, start: Indices, chosen: NDArray[np.int32], pixel: Indices
) -> Samples:
    """Normals and places on the skin, for the winning samples only."""
    by_part = np.argsort(chosen, kind="stable")
    chosen, pixel = chosen[by_part], pixel[by_part]
    edges = np.searchsorted(chosen, start)
    part = np.repeat(np.arange(len(tubes)), np.diff(edges))
    spokes = rings.spokes[part]
    ring, spoke = np.divmod(index_N[chosen], spokes)
    ring += rings.start[part]
    angle = _angle_of(spoke, spokes)
    squareness = np.array([tube.squareness for tube in tubes], np.float32)[part]
    sine, cosine = _rounded(np.sin(angle), squareness), _rounded(np.cos(angle), squareness)
    side = rings.side_R3 / (rings.side_R3 * rings.side_R3).sum(1, keepdims=True)
    front = rings.front_R3 / (rings.front_R3 * rings.front_R3).sum(1, keepdims=True)
    normal = side[ring] * sine[:, None] + front[ring] * cosine[:, None] - rings.slope_R3[ring]
    flip = np.where(normal[:, 2:] < 0, -1.0, 1.0)  # the inside of an open shell shows its back
    normal *= (flip / np.maximum(np.sqrt((normal * normal).sum(1, keepdims=True)), 1e-9)).astype(np.float32)
    return Samples(pixel, edges, normal, angle, rings.length_R[ring])


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return a[:, [1, 2, 0]] * b[:, [2, 0, 1]] - a[:, [2, 0, 1]] * b[:, [1, 2, 0]]


def _close_pinholes(winner_HW: NDArray[np.int32]) -> NDArray[np.int32]:
    """Fills single pixels that no sample hit, between ones that were hit."""
    covered = (winner_HW >= 0).astype(np.uint8)
    holes = (cv2.morphologyEx(covered, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0) & (covered == 0)
    if holes.any():
        grown = cv2.dilate(winner_HW.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
        winner_HW = np.where(holes, grown, winner_HW)
    return winner_HW
