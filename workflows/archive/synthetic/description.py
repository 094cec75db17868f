"""Says in words what the taxonomy names about a person, and never more than can be seen."""

from collections.abc import Collection

import numpy as np

from workflows.archive.synthetic.taxonomy import Identity

ALL_PARTS = frozenset({"face", "hair", "upper", "lower", "shoes", "hat", "bag", "build"})


def describe(identity: Identity, rng: np.random.Generator, visible: Collection[str] = ALL_PARTS) -> str:
    """A sentence about the visible parts of a person; the same rng state gives the same words."""
    a = identity.attributes
    who = str(rng.choice({"man": ["man", "male person", "guy"], "woman": ["woman", "female person", "lady"]}[a.gender]))
    if "build" in visible and a.build != "medium" and rng.random() < 0.6:
        who = f"{ {'slim': 'slim', 'heavy': str(rng.choice(['heavy', 'stout']))}[a.build] } {who}"
    clauses = [_hair(identity, rng)] if "hair" in visible else []
    wears = []
    if "upper" in visible:
        wears.append(_upper(identity))
    if "lower" in visible:
        wears.append(f"{a.lower_colour} {a.lower_kind}" if a.lower_kind != "skirt" else f"a {a.lower_colour} skirt")
    if "shoes" in visible:
        wears.append(f"{a.shoe_colour} shoes")
    if "hat" in visible and a.hat.kind != "none":
        wears.append(f"a {a.hat.colour} {a.hat.kind}")
    if "face" in visible and a.glasses != "none":
        wears.append(a.glasses)
    if "face" in visible and a.mask != "none":
        wears.append(f"a {a.mask}")
    rng.shuffle(wears)
    text = f"a {who}" + (f" with {clauses[0]}" if clauses and clauses[0] else "")
    if wears:
        text += " " + str(rng.choice(["wearing", "in", "dressed in"])) + " " + _listed(wears)
    if "bag" in visible and a.bag.kind != "none":
        text += f", {rng.choice(['carrying', 'with'])} a {a.bag.colour} {a.bag.kind}"
    return text


def _hair(identity: Identity, rng: np.random.Generator) -> str:
    a = identity.attributes
    if a.hair_style == "bald":
        return str(rng.choice(["a bald head", "no hair"]))
    if a.hair_style in ("ponytail", "bun"):
        return f"{a.hair_colour} hair in a {a.hair_style}"
    return f"{a.hair_style} {a.hair_colour} hair"


def _upper(identity: Identity) -> str:
    a = identity.attributes
    garment = f"{'an' if a.upper_colour[0] in 'aeiou' else 'a'} {a.upper_colour} {a.upper_kind}"
    if a.pattern.kind == "plain":
        return garment
    what = {"colour block": "{} lower part", "contrasting sleeves": "{} sleeves", "logo": "a {} logo"}
    return f"{garment} with " + what.get(a.pattern.kind, "{} " + a.pattern.kind).format(a.pattern.colour)


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
