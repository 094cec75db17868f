"""Tubes to pixels: a small renderer for bodies made of bent tubes, fast enough in plain NumPy.

Every part of a figure is a tube: a line of centres with an oval cross-section that changes along it. Its skin is
sampled densely, each sample keeps where it lies on the part (angle and length, for patterns) and its normal (for
light); the sample nearest to the camera wins its pixel. The paint is asked only about the samples that won.

View frame, metres: right, up and toward the camera. K = control points of a tube, R = rings, S = samples around a
ring, N = samples, P = covered pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Paint = Callable[[Array, Array], Array]  # (angle in radians, 0 in front; length in metres) -> linear RGB, (P, 3)
Keep = Callable[[Array, Array], NDArray[np.bool_]]  # the same coordinates -> which samples exist

SPACING_PX = 0.72  # between samples, so that no pixel of a surface stays without one


@dataclass(frozen=True)
class Tube:
    """One part of a figure in the body frame."""

    centre_K3: NDArray[np.float64]
    half_width_K: NDArray[np.float64]  # along `side`
    half_depth_K: NDArray[np.float64]  # along the front
    paint: Paint
    side: tuple[float, float, float] = (1.0, 0.0, 0.0)
    front_sign: float = 1.0  # 1 for tubes that run upward, -1 for those that run downward or forward
    squareness: float = 1.0  # 1 oval, towards 0 a box
    folds: float = 0.0  # depth of creases
    fold_scale_m: float = 0.11
    ribs_m: float = 0.0  # period of quilted ribs, 0 for none
    keep: Keep | None = None
    gloss: float = 0.0


@dataclass(frozen=True)
class Samples:
    """The winning samples of a picture, one per covered pixel, ordered by tube."""

    pixel_P: NDArray[np.int64]  # flat index into the picture
    edges: NDArray[np.int64]  # samples edges[i]:edges[i + 1] belong to tube i
    normal_P3: Array  # view frame, unit length
    angle_P: Array
    length_P: Array


def _spline(controls_KC: NDArray[np.float64], run_K: NDArray[np.float64], num_rings: int) -> NDArray[np.float64]:
    """(R, C) Catmull-Rom curve through the controls, its rings evenly spaced along the run."""
    count = len(controls_KC)
    position = np.interp(np.linspace(0, run_K[-1], num_rings), run_K, np.arange(count))
    left = np.minimum(position.astype(int), count - 2)
    t = (position - left)[:, None]
    before, after = controls_KC[np.maximum(left - 1, 0)], controls_KC[np.minimum(left + 2, count - 1)]
    here, there = controls_KC[left], controls_KC[left + 1]
    cubic = 3 * (here - there) + after - before
    square = 2 * before - 5 * here + 4 * there - after
    return here + (t / 2) * (there - before + t * (square + t * cubic))


@lru_cache(maxsize=512)
def _ring_angles(num_samples: int, squareness: float) -> tuple[Array, Array, Array]:
    """Angle, cosine and sine around a ring; squareness below 1 pushes the oval towards a box."""
    angle = (np.arange(num_samples) + 0.5) / num_samples * 2 * np.pi - np.pi
    cosine, sine = np.cos(angle), np.sin(angle)
    if squareness < 1:
        cosine = np.sign(cosine) * np.abs(cosine) ** squareness
        sine = np.sign(sine) * np.abs(sine) ** squareness
    return angle.astype(np.float32), cosine.astype(np.float32), sine.astype(np.float32)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.sqrt((vectors * vectors).sum(-1, keepdims=True))
    return vectors / np.maximum(norms, 1e-9)


@dataclass(frozen=True)
class _Rings:
    """One tube as rings in the view frame; a sample is centre + cosine * front + sine * side of its ring."""

    centre_R3: Array
    side_R3: Array
    front_R3: Array
    along_R3: Array  # unit tangent times the skin's slope
    length_R: Array
    squareness: float
    num_spokes: int

    def normals(self, ring_P: NDArray[np.int64], spoke_P: NDArray[np.int64]) -> Array:
        """Outward normals of chosen samples, not yet of unit length."""
        _, cosine, sine = _ring_angles(self.num_spokes, self.squareness)
        side = self.side_R3 / (self.side_R3 * self.side_R3).sum(1, keepdims=True)
        front = self.front_R3 / (self.front_R3 * self.front_R3).sum(1, keepdims=True)
        return side[ring_P] * sine[spoke_P, None] + front[ring_P] * cosine[spoke_P, None] - self.along_R3[ring_P]


def _rings(tube: Tube, view_33: NDArray[np.float64], px_per_m: float) -> _Rings:
    steps = tube.centre_K3[1:] - tube.centre_K3[:-1]
    widening = np.maximum(np.abs(np.diff(tube.half_width_K)), np.abs(np.diff(tube.half_depth_K)))
    run_K = np.concatenate([[0.0], np.cumsum(np.sqrt((steps * steps).sum(1)) + widening + 1e-6)])
    num_rings = int(run_K[-1] * px_per_m / SPACING_PX) + 6
    controls = np.column_stack([tube.centre_K3, tube.half_width_K, tube.half_depth_K])
    curve = _spline(controls, run_K, num_rings)
    centre, size = curve[:, :3], np.maximum(curve[:, 3:], 1e-3)
    along, growth = np.empty_like(centre), np.empty_like(size)
    along[1:-1], growth[1:-1] = centre[2:] - centre[:-2], size[2:] - size[:-2]
    along[[0, -1]], growth[[0, -1]] = 2 * (centre[[1, -1]] - centre[[0, -2]]), 2 * (size[[1, -1]] - size[[0, -2]])
    step_m = np.maximum(np.sqrt((along * along).sum(1)), 1e-6)
    along /= step_m[:, None]
    side = np.asarray(tube.side)
    side = _unit(side - (along @ side)[:, None] * along)
    front = tube.front_sign * _cross(along, side)
    slope = np.clip(growth.mean(1) / step_m, -4, 4)
    around_m = 2 * np.pi * np.sqrt(float((size.max(0) ** 2).mean()))
    view = view_33.T.astype(np.float32)

    def seen(vectors: NDArray[np.float64]) -> Array:
        return vectors.astype(np.float32) @ view

    return _Rings(
        centre_R3=seen(centre),
        side_R3=seen(side * size[:, :1]),
        front_R3=seen(front * size[:, 1:]),
        along_R3=seen(along * (slope / np.sqrt(size[:, 0] * size[:, 1]))[:, None]),
        length_R=np.concatenate([[0.0], np.cumsum(step_m[1:] / 2)]).astype(np.float32),
        squareness=tube.squareness,
        num_spokes=int(around_m * px_per_m / SPACING_PX) // 8 * 8 + 16,
    )


def _facing(tube: Tube, rings: _Rings) -> tuple[NDArray[np.int64], Array]:
    """Samples that the camera may see: flat index ring * spokes + spoke (N,), and position in the view frame (3, N)."""
    angle, cosine, sine = _ring_angles(rings.num_spokes, rings.squareness)
    circle = np.stack([np.ones_like(cosine), sine, cosine])
    if tube.keep is None:
        size_side = (rings.side_R3 * rings.side_R3).sum(1)
        size_front = (rings.front_R3 * rings.front_R3).sum(1)
        toward = np.stack(
            [-rings.along_R3[:, 2], rings.side_R3[:, 2] / size_side, rings.front_R3[:, 2] / size_front], axis=1
        )
        index = np.flatnonzero(toward @ circle > 0)
    else:
        index = np.flatnonzero(tube.keep(*np.broadcast_arrays(angle[None], rings.length_R[:, None])))
    axes = np.stack([rings.centre_R3, rings.side_R3, rings.front_R3], axis=2)  # (R, xyz, 3)
    position = [(axes[:, axis] @ circle).ravel()[index] for axis in range(3)]
    return index, np.stack(position)


def splat(
    tubes: Sequence[Tube], view_33: NDArray[np.float64], *, px_per_m: float, size_hw: tuple[int, int],
    origin_xy: tuple[float, float],
) -> Samples:  # fmt: skip
    """What the camera sees of the tubes; `origin_xy` is the pixel of the body frame's origin."""
    height, width = size_hw
    all_rings = [_rings(tube, view_33, px_per_m) for tube in tubes]
    parts = [_facing(tube, rings) for tube, rings in zip(tubes, all_rings, strict=True)]
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
    return _gather(all_rings, parts, start, winner[pixel], pixel)


def _gather(
    all_rings: Sequence[_Rings], parts: Sequence[tuple[NDArray[np.int64], Array]], start: NDArray[np.int64],
    chosen: NDArray[np.int32], pixel: NDArray[np.int64],
) -> Samples:  # fmt: skip
    """Normals and places on the skin, for the winning samples only, part by part."""
    by_part = np.argsort(chosen, kind="stable")
    chosen, pixel = chosen[by_part], pixel[by_part]
    edges = np.searchsorted(chosen, start)
    normals, angles, lengths = [], [], []
    for number, rings in enumerate(all_rings):
        index = parts[number][0][chosen[edges[number] : edges[number + 1]] - start[number]]
        ring, spoke = np.divmod(index, rings.num_spokes)
        normals.append(rings.normals(ring, spoke))
        angles.append(_ring_angles(rings.num_spokes, rings.squareness)[0][spoke])
        lengths.append(rings.length_R[ring])
    normal = np.concatenate(normals)
    flip = np.where(normal[:, 2:] < 0, -1.0, 1.0)  # the inside of an open shell shows its back
    normal *= (flip / np.maximum(np.sqrt((normal * normal).sum(1, keepdims=True)), 1e-9)).astype(np.float32)
    return Samples(pixel, edges, normal, np.concatenate(angles), np.concatenate(lengths))


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
