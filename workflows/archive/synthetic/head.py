"""Head, face, hair, hat and what is carried, as tubes."""

import numpy as np
from numpy.typing import NDArray

from workflows.archive.synthetic.body import Skeleton
from workflows.archive.synthetic.colours import linear, rgb
from workflows.archive.synthetic.fabric import mix, plain, soft_step
from workflows.archive.synthetic.surface import Array, Keep, Paint, Tube
from workflows.archive.synthetic.taxonomy import Identity

# (height from chin 0 to crown 1, half-width, half-depth, forward) for a stature of 1 m
_HEAD = np.array([
    (0.00, 0.012, 0.014, 0.030), (0.04, 0.022, 0.026, 0.022), (0.16, 0.0335, 0.042, 0.010),
    (0.34, 0.0405, 0.053, 0.003),
    (0.55, 0.0435, 0.0575, 0.0), (0.74, 0.0425, 0.056, -0.003), (0.90, 0.031, 0.041, -0.005),
    (0.97, 0.018, 0.024, -0.006),
    (1.00, 0.004, 0.006, -0.006),
])  # fmt: skip
HEAD_HEIGHT = 0.132  # chin to crown for a stature of 1 m


def head_and_hair(identity: Identity, skeleton: Skeleton) -> list[Tube]:
    """Neck, head, hair and hat."""
    a, look, unit = identity.attributes, identity.look, skeleton.unit
    chin = skeleton.head - np.array([0, 0, HEAD_HEIGHT * 0.5]) * unit
    top = skeleton.head - np.array([0, 0.004, 0.02]) * unit
    neck = np.stack([skeleton.neck - 0.015 * unit * skeleton.spine, skeleton.neck * 0.5 + top * 0.5, top])
    radius = np.array([0.036, 0.032, 0.031]) * unit * (1.0 if a.gender == "man" else 0.86) * look.girth**0.5
    skin = plain(look.skin)
    tubes = [Tube(neck, radius, radius, skin)]
    centre, width, depth = _skull(chin, unit, 1.0)
    tubes.append(Tube(centre, width, depth, _face(identity, HEAD_HEIGHT * unit)))
    nose = skeleton.head + np.array([[0, 0.050, 0.012], [0, 0.057, 0.0], [0, 0.062, -0.010], [0, 0.052, -0.017]]) * unit
    small = np.array([0.004, 0.007, 0.009, 0.004]) * unit
    if a.mask == "none":
        tubes.append(Tube(nose, small, small, skin, front_sign=-1))
    tubes += _hair(identity, skeleton, chin)
    tubes += _hat(identity, chin, unit)
    if a.upper_kind in ("hoodie", "coat", "jacket", "puffer jacket"):
        tubes.append(_collar(identity, skeleton))
    return tubes


def _skull(chin: Array, unit: float, scale: float) -> tuple[Array, Array, Array]:
    centre = (
        chin + _HEAD[:, :1] * HEAD_HEIGHT * unit * np.array([0, 0, 1.0]) + _HEAD[:, 3:] * unit * np.array([0, 1.0, 0])
    )
    return centre, _HEAD[:, 1] * unit * scale, _HEAD[:, 2] * unit * scale


def _face(identity: Identity, height_m: float) -> Paint:
    a, look = identity.attributes, identity.look
    skin, hair = linear(look.skin), linear(look.hair)
    lips = skin * rgb(0.80, 0.52, 0.52)
    dark = hair * 0.5 + 0.004
    mask = linear((0.88, 0.90, 0.92) if a.mask == "white mask" else (0.45, 0.62, 0.78))

    def paint(angle: Array, length: Array) -> Array:
        up = length / (height_m * 1.17)  # the line of centres is a little longer than the head is high
        colour = np.broadcast_to(skin, (len(angle), 3))
        turn = np.abs(angle)
        colour = mix(colour, hair, look.beard * 0.8 * (up < 0.36 + 0.12 * turn) * (turn < 1.9) * (up < 0.5))
        colour = mix(colour, lips, (turn < 0.36) * (np.abs(up - 0.24) < 0.03) * 0.8)
        socket = np.exp(-(((turn - 0.42) / 0.22) ** 2) - ((up - 0.55) / 0.05) ** 2)
        colour = mix(colour, dark, 0.62 * socket)
        brow = np.exp(-(((turn - 0.42) / 0.24) ** 2) - ((up - 0.635) / 0.024) ** 2)
        colour = mix(colour, dark, 0.55 * brow)
        if a.glasses != "none":
            lens = (np.abs(turn - 0.45) < 0.32) & (np.abs(up - 0.55) < 0.085)
            rim = lens & ~((np.abs(turn - 0.45) < 0.24) & (np.abs(up - 0.55) < 0.055))
            rim |= (turn < 1.6) & (np.abs(up - 0.58) < 0.016)
            colour = mix(colour, rgb(0.012, 0.012, 0.012), lens * 0.92 if a.glasses == "sunglasses" else rim * 0.9)
        if a.mask != "none":
            colour = mix(colour, mask, (turn < 1.05) * (up < 0.46))
        ear = (np.abs(turn - 1.62) < 0.14) * (np.abs(up - 0.5) < 0.11)
        return mix(colour, skin * rgb(0.8, 0.62, 0.58), ear * 0.5)

    return paint


def _hair(identity: Identity, skeleton: Skeleton, chin: Array) -> list[Tube]:
    a, look, unit = identity.attributes, identity.look, skeleton.unit
    if a.hair_style == "bald":
        return []
    thickness = {"short": 1.07, "curly": 1.28, "long": 1.13, "ponytail": 1.07, "bun": 1.07}[a.hair_style]
    thickness += 0.05 * look.hair_volume
    centre, width, depth = _skull(chin + np.array([0, -0.005, 0.004]) * unit, unit, thickness)
    lower = {"short": 0.30, "curly": 0.16, "long": 0.10, "ponytail": 0.28, "bun": 0.28}[a.hair_style]
    colour = _strands(linear(look.hair), look.hair_seed)
    folds = 0.9 if a.hair_style == "curly" else 0.3
    tubes = [
        Tube(
            centre, width, depth, colour, keep=_hairline(lower, 0.155 * unit), folds=folds, fold_scale_m=0.06, gloss=0.1
        )
    ]
    back = skeleton.head - np.array([0, 0.045, 0]) * unit
    if a.hair_style == "long":
        drop = 0.10 + 0.10 * look.hair_length
        line = np.stack([back + np.array([0, 0.032, 0.03]) * unit, back + np.array([0, 0.022, -0.03]) * unit,
                         skeleton.neck + np.array([0, -0.030, 0.02]) * unit,
                         skeleton.neck - np.array([0, 0.048, drop]) * unit])  # fmt: skip
        size = np.array([0.040, 0.050, 0.054, 0.034]) * unit
        tubes.append(
            Tube(line, size, size * np.array([0.85, 0.72, 0.5, 0.3]), colour, front_sign=-1, folds=0.3, gloss=0.1)
        )
    elif a.hair_style in ("ponytail", "bun"):
        drop = 0.11 if a.hair_style == "ponytail" else 0.012
        line = (
            back
            + np.array([[0, -0.008, 0.03], [0, -0.028, 0.022], [0, -0.034, -0.2 * drop], [0, -0.024, -drop]]) * unit
        )
        size = np.array([0.012, 0.020, 0.019, 0.006]) * unit * (1.0 if a.hair_style == "ponytail" else 1.35)
        tubes.append(Tube(line, size, size, colour, front_sign=-1, folds=0.2, gloss=0.1))
    return tubes


def _hairline(lower: float, length_m: float) -> Keep:
    """Hair grows above the forehead and behind the temples, down to `lower` at the nape."""

    def keep(angle: Array, length: Array) -> NDArray[np.bool_]:
        up, turn = length / length_m, np.abs(angle)
        edge = np.interp(
            turn,
            (0, 0.55, 1.05, 1.3, 1.75, 2.2, np.pi),
            (0.80, 0.77, 0.66, lower + 0.16, lower + 0.12, lower, lower - 0.1),
        )
        return up > edge

    return keep


def _strands(base: Array, seed: int) -> Paint:
    phase = seed % 7

    def paint(angle: Array, length: Array) -> Array:
        streak = 0.85 + 0.22 * np.sin(angle * 23 + phase + 2 * np.sin(angle * 7)) + 0.1 * np.sin(length * 90)
        return base * streak[:, None].astype(np.float32)

    return paint


def _hat(identity: Identity, chin: Array, unit: float) -> list[Tube]:
    a, look = identity.attributes, identity.look
    if a.hat.kind == "none":
        return []
    cloth = plain(look.hat)
    centre, width, depth = _skull(chin + np.array([0, -0.002, 0.006]) * unit, unit, 1.16)
    line = {"cap": 0.66, "beanie": 0.58, "brimmed hat": 0.64}[a.hat.kind] * 0.155 * unit
    tubes = [Tube(centre, width, depth, cloth, keep=lambda _angle, length: length > line, folds=0.15)]
    brow = chin + np.array([0, 0, 0.65 * HEAD_HEIGHT + 0.008]) * unit
    if a.hat.kind == "cap":
        brim = brow + np.array([[0, 0.035, 0.006], [0, 0.060, 0.006], [0, 0.085, 0.002], [0, 0.102, -0.005]]) * unit
        wide = np.array([0.045, 0.045, 0.038, 0.012]) * unit
        tubes.append(Tube(brim, wide, np.full(4, 0.004 * unit), cloth, front_sign=-1))
    elif a.hat.kind == "brimmed hat":
        rise = brow + np.array([[0, 0, -0.003], [0, 0, 0.0], [0, 0, 0.004]]) * unit
        wide = np.array([0.086, 0.084, 0.052]) * unit
        tubes.append(Tube(rise, wide, wide * 1.12, cloth))
    return tubes


def _collar(identity: Identity, skeleton: Skeleton) -> Tube:
    """A stand-up collar, or the folded hood of a hoodie lying on the back."""
    a, look, unit = identity.attributes, identity.look, skeleton.unit
    is_hood = a.upper_kind == "hoodie"
    base = skeleton.neck + np.array([0, -0.006, -0.012]) * unit
    line = base + np.array([[0, 0, 0], [0, -0.004, 0.016], [0, -0.008, 0.034 if is_hood else 0.03]]) * unit
    if is_hood:
        line = base + np.array([[0, -0.030, -0.020], [0, -0.034, 0.006], [0, -0.026, 0.032]]) * unit
    size = np.array([0.050, 0.049, 0.042]) * unit * (1.15 if is_hood else 1.0)
    reach = 1.0 + 0.5 * look.hem

    def keep(angle: Array, _length: Array) -> NDArray[np.bool_]:
        return np.abs(angle) > 0.45 * reach

    return Tube(line, size, size * 0.9, plain(look.upper), keep=keep, folds=0.3)


def carried(identity: Identity, skeleton: Skeleton) -> list[Tube]:
    """Backpack or bag."""
    a, look, unit = identity.attributes, identity.look, skeleton.unit
    cloth = _bag_paint(identity)
    if a.bag.kind == "backpack":
        down = skeleton.neck - skeleton.spine * 0.03 * unit + np.array([0, -0.098, 0]) * unit * look.girth**0.7
        drop = np.array([0.0, 0.02, 0.10, 0.20, 0.25, 0.262])[:, None] * unit
        size = 0.85 + 0.3 * look.hem
        width = np.array([0.02, 0.062, 0.078, 0.082, 0.074, 0.02]) * unit * size
        return [
            Tube(
                down - drop * size * skeleton.spine,
                width,
                width * 0.58,
                cloth,
                front_sign=-1,
                squareness=0.6,
                folds=0.22,
            )
        ]
    if a.bag.kind == "shoulder bag":
        at = skeleton.pelvis + np.array([-0.112 * look.girth, -0.012, 0.045]) * unit
        return [_box(at, (0.040, 0.082, 0.085), unit, cloth)]
    if a.bag.kind in ("handbag", "shopping bag"):
        hand = skeleton.arms[0].hand_end
        tall = 0.060 if a.bag.kind == "handbag" else 0.105
        return [_box(hand - np.array([0, 0, tall + 0.03]) * unit, (0.026, 0.075, tall), unit, cloth)]
    return []


def _bag_paint(identity: Identity) -> Paint:
    base = linear(identity.look.bag)

    def paint(angle: Array, length: Array) -> Array:
        seam = np.abs((length * 11) % 1 - 0.5) > 0.46
        return mix(
            np.broadcast_to(base, (len(angle), 3)), base * 0.4, seam * 0.6 + 0.2 * soft_step(-np.abs(angle) + 0.5, 0.2)
        )

    return paint


def _box(centre: Array, half: tuple[float, float, float], unit: float, paint: Paint) -> Tube:
    """A soft box: half-sizes across, along the way and up, for a stature of 1 m."""
    rise = np.array([-1.0, -0.92, -0.3, 0.5, 0.95, 1.0])
    size = np.array([0.2, 0.92, 1.0, 0.95, 0.85, 0.2]) * unit
    line = centre + rise[:, None] * np.array([0, 0, half[2] * unit])
    return Tube(line, size * half[0], size * half[1], paint, squareness=0.55, folds=0.2)
