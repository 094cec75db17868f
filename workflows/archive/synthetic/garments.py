"""What a person wears, as tubes around the skeleton: trunk, sleeves, trousers, skirts and shoes."""

from dataclasses import dataclass

import numpy as np

from workflows.archive.synthetic.body import SIDES, Arm, Leg, Skeleton
from workflows.archive.synthetic.colours import linear
from workflows.archive.synthetic.fabric import mix, pattern_share, plain, soft_step
from workflows.archive.synthetic.surface import Array, Paint, Tube
from workflows.archive.synthetic.taxonomy import Identity


@dataclass(frozen=True)
class Cut:
    """How a kind of upper garment is cut."""

    ease_m: tuple[float, float]  # added to the body's radius, tight .. wide
    hem: tuple[float, float]  # where it ends, as a fraction of the way from the crotch (0) down to the knee (1)
    sleeve: float  # 1 to the wrist, 0.5 to the elbow
    opens: bool
    folds: float
    ribs_m: float = 0.0


CUTS = {
    "t-shirt": Cut((0.004, 0.022), (-0.22, 0.10), 0.40, False, 0.24),
    "shirt": Cut((0.006, 0.022), (-0.15, 0.15), 1.0, False, 0.26),
    "sweater": Cut((0.010, 0.028), (-0.22, 0.05), 1.0, False, 0.20),
    "hoodie": Cut((0.018, 0.036), (-0.18, 0.10), 1.0, True, 0.17),
    "jacket": Cut((0.018, 0.036), (-0.20, 0.15), 1.0, True, 0.22),
    "puffer jacket": Cut((0.032, 0.055), (-0.15, 0.15), 1.0, True, 0.10, 0.085),
    "coat": Cut((0.018, 0.036), (0.35, 1.15), 1.0, True, 0.17),
}
# (height from crotch 0 to base of the neck 1, half-width, half-depth, forward) for a stature of 1 m
_TRUNK_MAN = np.array([
    (-0.05, 0.078, 0.060, 0.0), (0.06, 0.094, 0.070, -0.004), (0.20, 0.093, 0.068, 0.0), (0.38, 0.089, 0.066, 0.004),
    (0.58, 0.100, 0.072, 0.006), (0.76, 0.106, 0.070, 0.004), (0.87, 0.101, 0.056, 0.0), (0.945, 0.068, 0.045, -0.002),
    (1.01, 0.036, 0.034, 0.002),
])  # fmt: skip
_TRUNK_WOMAN = np.array([
    (-0.05, 0.085, 0.064, -0.004), (0.08, 0.101, 0.074, -0.010), (0.22, 0.092, 0.066, -0.002),
    (0.40, 0.075, 0.056, 0.003),
    (0.58, 0.086, 0.066, 0.010), (0.72, 0.094, 0.072, 0.012), (0.87, 0.090, 0.050, 0.0), (0.955, 0.060, 0.039, -0.002),
    (1.01, 0.032, 0.031, 0.002),
])  # fmt: skip


def clothe(identity: Identity, skeleton: Skeleton) -> list[Tube]:
    """All garments of an identity on a skeleton."""
    tubes = [_hips(identity, skeleton), _trunk(identity, skeleton)]
    for side, arm, leg in zip(SIDES, skeleton.arms, skeleton.legs, strict=True):
        tubes += _sleeve(identity, skeleton, arm, side)
        tubes += _leg(identity, skeleton, leg)
        tubes.append(_shoe(identity, skeleton, leg))
    if identity.attributes.lower_kind == "skirt":
        tubes.append(_skirt(identity, skeleton))
    return tubes


def upper_garment(identity: Identity, skeleton: Skeleton) -> list[Tube]:
    """Trunk and sleeves, without the person in them."""
    sleeves = [_sleeve(identity, skeleton, arm, side) for side, arm in zip(SIDES, skeleton.arms, strict=True)]
    return [_trunk(identity, skeleton)] + [tube for tubes in sleeves for tube in tubes if not tube.is_skin]


def _trunk(identity: Identity, skeleton: Skeleton) -> Tube:
    a, look, unit = identity.attributes, identity.look, skeleton.unit
    cut = CUTS[a.upper_kind]
    ease = np.interp(look.looseness, (0, 1), cut.ease_m)
    table = _TRUNK_MAN if a.gender == "man" else _TRUNK_WOMAN
    span = np.linalg.norm(skeleton.neck - skeleton.pelvis)
    height = table[:, 0] * span
    belly = (look.girth - 1) * np.exp(-(((table[:, 0] - 0.30) / 0.28) ** 2)) * 0.05 * unit * (look.girth > 1)
    centre = (
        skeleton.pelvis + height[:, None] * skeleton.spine + (table[:, 3] * unit + belly)[:, None] * np.array([0, 1, 0])
    )
    width: Array = table[:, 1] * unit * np.where(table[:, 0] > 0.7, look.shoulders, 1.0) * look.girth**0.9
    depth: Array = table[:, 2] * unit * look.girth + belly
    fade = np.clip((1.0 - table[:, 0]) / 0.15, 0.25, 1)
    width, depth = width + ease * fade, depth + ease * fade
    hem = np.interp(look.hem, (0, 1), cut.hem)
    centre, width, depth = _to_hem(skeleton, centre, width, depth, hem, look.looseness)
    return Tube(
        centre, width, depth, _trunk_paint(identity, cut, centre, float(width.max())), folds=cut.folds,
        squareness=0.88, ribs_m=cut.ribs_m, gloss=0.12 if a.upper_kind == "puffer jacket" else 0.0,
    )  # fmt: skip


def _hips(identity: Identity, skeleton: Skeleton) -> Tube:
    """Trousers from crotch to waist, which show below a short jacket."""
    a, look, unit = identity.attributes, identity.look, skeleton.unit
    table = (_TRUNK_MAN if a.gender == "man" else _TRUNK_WOMAN)[:4]
    span = np.linalg.norm(skeleton.neck - skeleton.pelvis)
    centre = skeleton.pelvis + table[:, :1] * span * skeleton.spine + table[:, 3:] * unit * np.array([0, 1.0, 0])
    width, depth = table[:, 1] * unit * look.girth**0.9, table[:, 2] * unit * look.girth
    return Tube(centre, width * np.array([0.8, 1, 1, 1]), depth, plain(look.lower), squareness=0.9, folds=0.1)


def _to_hem(
    skeleton: Skeleton, centre: Array, width: Array, depth: Array, hem: float, flare: float
) -> tuple[Array, ...]:
    """Cuts the trunk at its hem, or lets it hang down around the legs to it."""
    knees = (skeleton.legs[0].knee + skeleton.legs[1].knee) / 2
    spread = abs(float(skeleton.legs[0].knee[1] - skeleton.legs[1].knee[1])) / 2
    if hem <= 0:
        skipped = int(np.searchsorted(np.array([-0.05, 0.07, 0.21]), -hem * 0.8))
        return centre[skipped:], width[skipped:], depth[skipped:]
    fall = np.array([hem, hem * 0.66, hem * 0.33])[:, None]
    lower = skeleton.pelvis + (knees - skeleton.pelvis) * fall
    share = np.array([1.0, 0.66, 0.33])
    low_width = width[1] * (1 + 0.04 * share * (1 + flare))
    low_depth = depth[1] * (1 + 0.05 * share) + spread * fall[:, 0] * 0.8
    return (
        np.concatenate([lower, centre[1:]]),
        np.concatenate([low_width, width[1:]]),
        np.concatenate([low_depth, depth[1:]]),
    )


def _trunk_paint(identity: Identity, cut: Cut, centre: Array, radius_m: float) -> Paint:
    a, look = identity.attributes, identity.look
    base, accent, inner = linear(look.upper), linear(look.accent), linear(look.inner)
    total = float(np.sqrt((np.diff(centre, axis=0) ** 2).sum(1)).sum())
    skin, bag = linear(look.skin), linear(look.bag)
    rng = np.random.default_rng(look.texture_seed)
    gap, block = rng.uniform(0.22, 0.5), rng.uniform(0.35, 0.6)
    logo_width, logo_at = rng.uniform(0.3, 0.55), rng.uniform(0.22, 0.30)
    is_crossed = a.bag.kind == "shoulder bag"

    def paint(angle: Array, length: Array) -> Array:
        below = total - length  # metres below the base of the neck
        colour = np.broadcast_to(base, (len(angle), 3))
        if a.pattern.kind == "colour block":
            colour = mix(colour, accent, soft_step(below - block * 0.45, 0.012))
        elif a.pattern.kind == "logo":
            inside = (np.abs(angle) < logo_width) & (np.abs(below - logo_at) < logo_width * 0.14)
            colour = mix(colour, accent, inside & ((below * 60 + angle * 6).astype(np.int64) % 3 > 0))
        else:
            colour = mix(colour, accent, pattern_share(a.pattern.kind, angle * radius_m, length, look.pattern_period_m))
        if cut.opens and look.is_open:
            width = gap * np.clip(0.35 + below * 1.4, 0, 1.2)
            colour = mix(colour, inner, 1 - soft_step(np.abs(angle) - width, 0.06))
        elif cut.opens:
            colour = mix(colour, base * 0.45, (np.abs(angle) < 0.05) * 0.6)
            colour = mix(colour, inner, (np.abs(angle) < 0.34 - below * 2.6) * 0.9)
        elif a.upper_kind == "t-shirt":
            colour = mix(colour, skin, (below < 0.045 - 0.02 * np.abs(angle)) * 1.0)
        if a.bag.kind == "backpack":
            colour = mix(colour, bag, (np.abs(np.abs(angle) - 0.62) < 0.13) & (below < 0.30))
        elif is_crossed:
            line = 0.75 - below * 3.4
            colour = mix(
                colour,
                bag,
                (np.abs(np.where(np.abs(angle) < 1.57, angle, -np.pi + angle) - line) < 0.12) * (below < 0.5),
            )
        return colour

    return paint


def _sleeve(identity: Identity, skeleton: Skeleton, arm: Arm, side: float) -> list[Tube]:
    a, look, unit = identity.attributes, identity.look, skeleton.unit
    cut = CUTS[a.upper_kind]
    ease = float(np.interp(look.looseness, (0, 1), cut.ease_m)) * 0.8
    girth = look.girth * (1.0 if a.gender == "man" else 0.87)
    points = np.stack([
        arm.shoulder + np.array([-side * 0.024, 0, -0.004]) * unit, arm.shoulder * 0.88 + arm.elbow * 0.12,
        (arm.shoulder + arm.elbow) / 2, arm.elbow, (arm.elbow + arm.wrist) / 2, arm.wrist,
    ])  # fmt: skip
    radius = np.array([0.012, 0.0265, 0.0275, 0.0245, 0.0235, 0.0165]) * unit * girth
    colour = look.accent if a.pattern.kind == "contrasting sleeves" else look.upper
    base, accent = linear(colour), linear(look.accent)
    wave = a.pattern.kind if a.pattern.kind in ("horizontal stripes", "checks", "dots", "vertical stripes") else "plain"

    def paint(angle: Array, length: Array) -> Array:
        whole = np.broadcast_to(base, (len(angle), 3))
        return mix(whole, accent, pattern_share(wave, angle * 0.05, length, look.pattern_period_m))

    skin = plain(look.skin)
    tubes = []
    cloth = radius + ease * np.array([0.2, 0.55, 0.9, 1, 0.9, 0.75])
    if cut.sleeve < 1:
        tubes.append(Tube(points[2:], radius[2:], radius[2:], skin, front_sign=-1, is_skin=True))
        points, cloth = points[:4].copy(), cloth[:4]
        points[3] = points[2] + (points[3] - points[2]) * (0.1 + 0.6 * look.hem)
    tubes.append(
        Tube(points, cloth, cloth, paint, front_sign=-1, folds=cut.folds * 1.2, fold_scale_m=0.08, ribs_m=cut.ribs_m,
             gloss=0.12 if a.upper_kind == "puffer jacket" else 0.0)
    )  # fmt: skip
    if look.arms != "pockets":
        hand = arm.wrist + np.linspace(-0.1, 1, 5)[:, None] * (arm.hand_end - arm.wrist)
        size = np.array([0.014, 0.021, 0.024, 0.020, 0.006]) * unit
        tubes.append(Tube(hand, size * 0.62, size, skin, front_sign=-1, is_skin=True))
    return tubes


def _leg(identity: Identity, skeleton: Skeleton, leg: Leg) -> list[Tube]:
    a, look, unit = identity.attributes, identity.look, skeleton.unit
    top = leg.hip + np.array([-np.sign(leg.hip[0]) * 0.004, 0, 0.035]) * unit
    points = np.stack([
        top, leg.hip * 0.85 + leg.knee * 0.15, (leg.hip + leg.knee) / 2, leg.hip * 0.12 + leg.knee * 0.88,
        leg.knee * 0.75 + leg.ankle * 0.25, (leg.knee + leg.ankle) / 2, leg.ankle,
    ])  # fmt: skip
    girth = look.girth * (1.0 if a.gender == "man" else 0.97)
    radius = np.array([0.050, 0.0525, 0.0435, 0.032, 0.0315, 0.0305, 0.0195]) * unit * girth
    if a.lower_kind in ("skirt", "shorts"):
        tubes = [Tube(points, radius, radius, plain(look.skin), front_sign=-1)]
        if a.lower_kind == "shorts":
            points[4] = points[3]
            cloth = radius[:4] + np.array([0.006, 0.010, 0.014, 0.018]) * (0.7 + look.looseness)
            points[3] = leg.hip + (leg.knee - leg.hip) * (0.72 + 0.25 * look.hem)
            tubes.append(Tube(points[:4], cloth, cloth, plain(look.lower), front_sign=-1, folds=0.3))
        return tubes
    wide = 0.25 * look.looseness if a.lower_kind == "leggings" else 0.5 + look.looseness
    ease = np.array([0.004, 0.005, 0.007, 0.010, 0.012, 0.014, 0.020]) * wide
    cloth = radius + (0.0 if a.lower_kind == "leggings" else ease)
    points[6] = leg.ankle + (leg.ankle - leg.knee) * (0.02 + 0.05 * look.looseness)
    folds = 0.05 if a.lower_kind == "leggings" else 0.17
    fabric = _denim(look.lower, look.fade)
    return [Tube(points, cloth, cloth, fabric, front_sign=-1, folds=folds, fold_scale_m=0.10)]


def _denim(shade: tuple[float, float, float], fade: float) -> Paint:
    """Cloth that is washed out along the front of the thigh and the shin."""
    base = linear(shade)
    worn = base * 0.55 + 0.45 * linear((0.72, 0.76, 0.82))

    def paint(angle: Array, length: Array) -> Array:
        amount = fade * np.exp(-((angle / 0.8) ** 2)) * (0.55 + 0.45 * np.cos(length * 9))
        return mix(np.broadcast_to(base, (len(angle), 3)), worn, amount)

    return paint


def _skirt(identity: Identity, skeleton: Skeleton) -> Tube:
    look, unit = identity.look, skeleton.unit
    fall = np.array([-0.35, 0.05, 0.5, 0.75 + 0.5 * look.hem])
    knees = (skeleton.legs[0].knee + skeleton.legs[1].knee) / 2
    spread = abs(float(skeleton.legs[0].knee[1] - skeleton.legs[1].knee[1])) / 2
    centre = skeleton.pelvis + fall[:, None] * (knees - skeleton.pelvis)
    width = np.array([0.080, 0.106, 0.108, 0.110 + 0.03 * look.looseness]) * unit * look.girth
    depth = np.array([0.060, 0.078, 0.075, 0.072]) * unit * look.girth + spread * np.array([0, 0, 0.6, 0.9])
    return Tube(centre, width, depth, plain(look.lower), front_sign=-1, folds=0.28, fold_scale_m=0.14)


def _shoe(identity: Identity, skeleton: Skeleton, leg: Leg) -> Tube:
    unit, pitch = skeleton.unit, np.radians(leg.foot_deg)
    forward = np.array([leg.hip[0] * 0.9, np.cos(pitch), np.sin(pitch)])
    down = np.array([0.0, np.sin(pitch), -np.cos(pitch)])
    reach = np.array([-0.038, -0.022, 0.005, 0.045, 0.085, 0.108]) * unit
    drop = np.array([0.024, 0.020, 0.018, 0.024, 0.030, 0.034]) * unit
    centre = leg.ankle + reach[:, None] * forward + drop[:, None] * down
    width = np.array([0.006, 0.019, 0.022, 0.025, 0.024, 0.006]) * unit
    depth = np.array([0.012, 0.024, 0.027, 0.021, 0.014, 0.006]) * unit
    sole, upper = linear(identity.look.shoes) * 0.6, linear(identity.look.shoes)

    def paint(angle: Array, _length: Array) -> Array:
        return mix(np.broadcast_to(upper, (len(angle), 3)), sole, (np.abs(angle) > 2.0) * 0.8)

    return Tube(centre, width, depth, paint, front_sign=-1, squareness=0.8, gloss=0.08)
