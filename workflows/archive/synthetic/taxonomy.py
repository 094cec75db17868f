"""Who can walk through the archive: identities, their clothes, and how two of them can be told apart.

`Attributes` is what words can say about a person; a text query never says more. `Look` is everything else that the
picture holds: exact shades, stature, the size of a pattern, the way of walking. A look-alike shares all attributes but
one, yet is somebody else and has a look of its own.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from workflows.archive.synthetic.colours import CLOTH, HAIR, SKIN, Shade, choose

UPPER_COLOURS = {
    "black": 0.23, "grey": 0.13, "navy": 0.11, "white": 0.10, "brown": 0.07, "blue": 0.07, "beige": 0.06, "red": 0.06,
    "maroon": 0.03, "olive": 0.04, "green": 0.03, "light blue": 0.03, "pink": 0.02, "purple": 0.02, "yellow": 0.01,
    "orange": 0.01,
}  # fmt: skip
LOWER_COLOURS = {
    "jeans": {"blue": 0.45, "navy": 0.25, "black": 0.14, "grey": 0.08, "light blue": 0.08},
    "trousers": {"black": 0.40, "grey": 0.18, "navy": 0.13, "beige": 0.13, "brown": 0.08, "olive": 0.06, "white": 0.02},
    "shorts": {"beige": 0.25, "black": 0.22, "navy": 0.18, "blue": 0.15, "grey": 0.12, "olive": 0.08},
    "skirt": {"black": 0.38, "grey": 0.15, "navy": 0.14, "red": 0.09, "beige": 0.12, "green": 0.06, "blue": 0.06},
    "leggings": {"black": 0.65, "grey": 0.17, "navy": 0.18},
}
SHOE_COLOURS = {"black": 0.42, "brown": 0.17, "white": 0.20, "grey": 0.10, "blue": 0.05, "red": 0.04, "beige": 0.02}
BAG_COLOURS = {"black": 0.42, "brown": 0.14, "grey": 0.12, "navy": 0.10, "red": 0.08, "beige": 0.08, "green": 0.06}
HAT_COLOURS = {"black": 0.38, "navy": 0.14, "grey": 0.16, "white": 0.10, "red": 0.12, "beige": 0.06, "green": 0.04}
HAIR_COLOURS = {"black": 0.34, "brown": 0.36, "blond": 0.17, "grey": 0.10, "red": 0.03}
ACCENTS = {"white": 0.30, "grey": 0.14, "black": 0.14, "red": 0.14, "navy": 0.10, "blue": 0.06, "beige": 0.06,
           "yellow": 0.03, "green": 0.03}  # fmt: skip
UPPER_KINDS = {
    "man": {"jacket": 0.30, "coat": 0.12, "hoodie": 0.14, "sweater": 0.12, "t-shirt": 0.15, "shirt": 0.10,
            "puffer jacket": 0.07},
    "woman": {"jacket": 0.24, "coat": 0.24, "hoodie": 0.08, "sweater": 0.16, "t-shirt": 0.14, "shirt": 0.07,
              "puffer jacket": 0.07},
}  # fmt: skip
LOWER_KINDS = {
    "man": {"jeans": 0.50, "trousers": 0.40, "shorts": 0.10},
    "woman": {"jeans": 0.44, "trousers": 0.24, "skirt": 0.14, "leggings": 0.13, "shorts": 0.05},
}
HAIR_STYLES = {
    "man": {"short": 0.72, "bald": 0.14, "curly": 0.10, "long": 0.04},
    "woman": {"long": 0.40, "ponytail": 0.20, "short": 0.14, "curly": 0.14, "bun": 0.12},
}
PATTERNS = {
    "plain": 0.62, "horizontal stripes": 0.08, "vertical stripes": 0.03, "checks": 0.07, "dots": 0.02, "logo": 0.08,
    "contrasting sleeves": 0.06, "colour block": 0.04,
}  # fmt: skip
HATS = {"none": 0.80, "cap": 0.09, "beanie": 0.08, "brimmed hat": 0.03}
GLASSES = {"none": 0.80, "glasses": 0.15, "sunglasses": 0.05}
MASKS = {"none": 0.94, "white mask": 0.03, "blue mask": 0.03}
BAGS = {"none": 0.58, "backpack": 0.18, "shoulder bag": 0.12, "handbag": 0.06, "shopping bag": 0.06}
BUILDS = {"slim": 0.32, "medium": 0.48, "heavy": 0.20}


class Item(NamedTuple):
    """A thing with a colour, said in one breath: ("cap", "red"). Kind "none" has colour "none"."""

    kind: str
    colour: str


NO_ITEM = Item("none", "none")


@dataclass(frozen=True)
class Attributes:
    """All that words say about a person. Each field is one attribute: a look-alike differs in exactly one."""

    gender: str
    build: str
    hair_style: str
    hair_colour: str
    upper_kind: str
    upper_colour: str
    pattern: Item
    lower_kind: str
    lower_colour: str
    shoe_colour: str
    hat: Item
    glasses: str
    mask: str
    bag: Item


BODY_FIELDS = ("gender", "build", "hair_style", "hair_colour")


@dataclass(frozen=True)
class Look:
    """What only the picture tells. Shades are sRGB in [0, 1], lengths in metres."""

    height_m: float
    girth: float  # factor on the body's widths
    shoulders: float  # factor on the shoulders' width
    skin: Shade
    hair: Shade
    beard: float  # 0 none .. 1 full
    upper: Shade
    accent: Shade
    inner: Shade  # the shirt that shows under an open jacket
    lower: Shade
    shoes: Shade
    hat: Shade
    bag: Shade
    pattern_period_m: float
    is_open: bool  # jacket or coat worn open
    looseness: float  # 0 tight .. 1 wide
    hem: float  # 0 short .. 1 long, within the garment's kind
    fade: float  # washed-out thighs of jeans
    texture_seed: int
    stride: float  # factor on the step's length
    arm_swing: float
    arms: str  # "swing", "pockets" or "phone"
    lean_deg: float
    hair_length: float = 0.5  # 0 short .. 1 long, within the style
    hair_volume: float = 0.5  # 0 flat .. 1 full
    hair_seed: int = 0  # of its strands


@dataclass(frozen=True)
class Identity:
    """One person of the archive in one set of clothes."""

    attributes: Attributes
    look: Look
    clothes: int = 0  # 0 the first set, 1 the next ...


def sample_identity(rng: np.random.Generator) -> Identity:
    """A new person, with the frequencies of a European street."""
    gender = choose(rng, {"man": 0.54, "woman": 0.46})
    style = choose(rng, HAIR_STYLES[gender])
    body: dict[str, Any] = {
        "gender": gender,
        "build": choose(rng, BUILDS),
        "hair_style": style,
        "hair_colour": choose(rng, HAIR_COLOURS),
    }
    attributes = Attributes(**body, **_sample_clothes(gender, rng))
    return Identity(attributes, _sample_look(attributes, rng))


def look_alike(identity: Identity, rng: np.random.Generator) -> Identity:
    """Somebody else, of whom the same words are true but for exactly one attribute."""
    names = [field.name for field in fields(Attributes)]
    while True:
        name, other = str(rng.choice(names)), sample_identity(rng).attributes
        changed = replace(identity.attributes, **{name: getattr(other, name)})
        if changed != identity.attributes and not _is_odd(changed):
            break
    return Identity(changed, _sample_look(changed, rng))


def with_other_clothes(identity: Identity, rng: np.random.Generator) -> Identity:
    """The same person on another day: body, hair, glasses and gait stay, clothes and what is carried change."""
    clothes = _sample_clothes(identity.attributes.gender, rng)
    attributes = replace(identity.attributes, **clothes | {"glasses": identity.attributes.glasses})
    look = _sample_look(attributes, rng)
    kept = ("height_m", "girth", "shoulders", "skin", "hair", "hair_length", "hair_volume", "hair_seed", "beard",
            "stride", "arm_swing", "lean_deg")  # fmt: skip
    look = replace(look, **{name: getattr(identity.look, name) for name in kept})
    return Identity(attributes, look, identity.clothes + 1)


def differing_attributes(one: Attributes, other: Attributes) -> list[str]:
    """Names of the attributes in which two persons differ."""
    return [f.name for f in fields(Attributes) if getattr(one, f.name) != getattr(other, f.name)]


def _is_odd(attributes: Attributes) -> bool:
    """Combinations that nobody wears or that would show nothing: an accent in the garment's own colour."""
    known = LOWER_COLOURS[attributes.lower_kind]
    return attributes.pattern.colour == attributes.upper_colour or attributes.lower_colour not in known


def _sample_item(rng: np.random.Generator, kinds: dict[str, float], colours: dict[str, float]) -> Item:
    kind = choose(rng, kinds)
    return NO_ITEM if kind == "none" else Item(kind, choose(rng, colours))


def _sample_clothes(gender: str, rng: np.random.Generator) -> dict[str, Any]:
    upper_colour = choose(rng, UPPER_COLOURS)
    pattern = choose(rng, PATTERNS)
    accents = {name: weight for name, weight in ACCENTS.items() if name != upper_colour}
    lower_kind = choose(rng, LOWER_KINDS[gender])
    return {
        "upper_kind": choose(rng, UPPER_KINDS[gender]),
        "upper_colour": upper_colour,
        "pattern": Item("plain", "none") if pattern == "plain" else Item(pattern, choose(rng, accents)),
        "lower_kind": lower_kind,
        "lower_colour": choose(rng, LOWER_COLOURS[lower_kind]),
        "shoe_colour": choose(rng, SHOE_COLOURS),
        "hat": _sample_item(rng, HATS, HAT_COLOURS),
        "glasses": choose(rng, GLASSES),
        "mask": choose(rng, MASKS),
        "bag": _sample_item(rng, BAGS, BAG_COLOURS),
    }


def _sample_skin(hair_colour: str, rng: np.random.Generator) -> Shade:
    """Fair and red hair go with light skin."""
    shares = [0.85, 0.15, 0.0, 0.0] if hair_colour in ("blond", "red") else [0.46, 0.24, 0.17, 0.13]
    return SKIN[int(rng.choice(len(SKIN), p=shares))].sample(rng)


def _sample_look(attributes: Attributes, rng: np.random.Generator) -> Look:
    is_man = attributes.gender == "man"
    girth = {"slim": 0.88, "medium": 1.0, "heavy": 1.17}[attributes.build]
    accent, inner = attributes.pattern.colour, choose(rng, UPPER_COLOURS)
    look = Look(
        height_m=float(np.clip(rng.normal(1.77 if is_man else 1.65, 0.07), 1.48, 1.98)),
        girth=girth * rng.uniform(0.95, 1.06),
        shoulders=rng.uniform(0.94, 1.07),
        skin=_sample_skin(attributes.hair_colour, rng),
        hair=HAIR[attributes.hair_colour].sample(rng),
        beard=float(rng.uniform(0.4, 1.0)) if is_man and rng.random() < 0.3 else 0.0,
        upper=CLOTH[attributes.upper_colour].sample(rng),
        accent=CLOTH[accent].sample(rng) if accent != "none" else (0.5, 0.5, 0.5),
        inner=CLOTH[inner].sample(rng),
        lower=CLOTH[attributes.lower_colour].sample(rng),
        shoes=CLOTH[attributes.shoe_colour].sample(rng),
        hat=CLOTH[attributes.hat.colour].sample(rng) if attributes.hat != NO_ITEM else (0.1, 0.1, 0.1),
        bag=CLOTH[attributes.bag.colour].sample(rng) if attributes.bag != NO_ITEM else (0.1, 0.1, 0.1),
        pattern_period_m=float(rng.uniform(0.05, 0.13)),
        is_open=bool(rng.random() < 0.4),
        looseness=float(rng.random()),
        hem=float(rng.random()),
        fade=float(rng.uniform(0.0, 0.5)) if attributes.lower_kind == "jeans" else 0.0,
        texture_seed=int(rng.integers(1 << 30)),
        stride=float(rng.uniform(0.85, 1.12)),
        arm_swing=float(rng.uniform(0.5, 1.25)),
        arms=choose(rng, {"swing": 0.76, "pockets": 0.14, "phone": 0.10}),
        lean_deg=float(rng.uniform(0.0, 5.0)),
    )
    # The hair has no draws of its own, so people look as they did before it kept its shape in other clothes.
    return replace(look, hair_length=look.hem, hair_volume=look.looseness, hair_seed=look.texture_seed)
