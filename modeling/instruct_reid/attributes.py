"""Attributes of a person and their way into sentences (§III, attribute-to-language transformation).

20 attributes with 92 words, a taxonomy of our own. Sentences come from templates chosen by the random generator, so the
same attributes are said in many ways, and every attribute given is said.
"""

from collections.abc import Collection, Mapping

import numpy as np

from modeling.errors import DataError

_COLOURS = (
    "black", "grey", "navy", "white", "brown", "blue", "beige", "red", "maroon", "olive", "green", "light blue", "pink",
    "purple", "yellow", "orange",
)  # fmt: skip
TONES = ("dark", "light", "bright")

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "gender": ("man", "woman"),
    "build": ("slim", "medium", "heavy"),
    "hair style": ("short", "bald", "curly", "long", "ponytail", "bun"),
    "hair colour": ("black", "brown", "blond", "grey", "red"),
    "beard": ("beard", "clean-shaven"),
    "upper garment": ("jacket", "coat", "hoodie", "sweater", "t-shirt", "shirt", "puffer jacket"),
    "upper colour": _COLOURS,
    "pattern": (
        "plain", "horizontal stripes", "vertical stripes", "checks", "dots", "logo", "contrasting sleeves",
        "colour block",
    ),
    "pattern tone": TONES,
    "fastening": ("open", "closed"),
    "lower garment": ("jeans", "trousers", "shorts", "skirt", "leggings"),
    "lower colour": (
        "black", "grey", "navy", "white", "brown", "blue", "beige", "red", "olive", "green", "light blue",
    ),
    "shoe tone": TONES,
    "hat": ("cap", "beanie", "brimmed hat"),
    "hat tone": TONES,
    "glasses": ("glasses", "sunglasses"),
    "mask": ("face mask",),
    "bag": ("backpack", "shoulder bag", "handbag", "shopping bag"),
    "bag tone": TONES,
    "posture": ("walks with swinging arms", "keeps the hands in the pockets", "looks at a phone"),
}  # fmt: skip
"""Every attribute with the words it can take; an attribute that does not apply (no hat) is left out of a person."""

PASSING = frozenset(ATTRIBUTES) - {"gender", "build", "hair style", "hair colour", "beard", "glasses"}
"""Attributes that another day changes: what is worn or carried, and how."""
COLOURED = frozenset(name for name in ATTRIBUTES if name.endswith((" colour", " tone")))
"""Attributes that an infrared picture does not show."""
LABEL_COUNTS = tuple(1 + len(words) for words in ATTRIBUTES.values())
"""Labels of each attribute: 0 where it does not apply (no hat), then its words."""
UNKNOWN_LABEL = -1
MENTIONED = (0.3, 0.9)
"""Shares of the attributes that a description in part mentions."""

_CARRIER = {
    "upper colour": "upper garment", "pattern": "upper garment", "pattern tone": "pattern",
    "fastening": "upper garment", "lower colour": "lower garment", "hat tone": "hat", "bag tone": "bag",
}  # fmt: skip

_TONES_OF: dict[str, tuple[str, ...]] = {
    "dark": ("black", "navy", "brown", "maroon", "olive"),
    "light": ("white", "grey", "beige", "light blue"),
}


def tone_of(colour: str) -> str:
    """dark, light or bright: what is still seen of a small thing's colour."""
    return next((tone for tone, colours in _TONES_OF.items() if colour in colours), "bright")


def attribute_labels(attributes: Mapping[str, str], *, but: Collection[str] = ()) -> list[int]:
    """A label for each attribute of the taxonomy: the word's number from 1 on, 0 for one that does not apply.

    Of a person of whom nothing is known, and of the attributes named by `but`, the label is UNKNOWN_LABEL. Raises
    DataError for an attribute or a word that the taxonomy lacks.
    """
    _check_known(attributes)
    if not attributes:
        return [UNKNOWN_LABEL] * len(ATTRIBUTES)
    return [
        UNKNOWN_LABEL if name in but else 1 + words.index(attributes[name]) if name in attributes else 0
        for name, words in ATTRIBUTES.items()
    ]


def describe_attributes(attributes: Mapping[str, str], rng: np.random.Generator) -> str:
    """Two or three sentences that say every attribute given; the same generator state gives the same words.

    Raises DataError for an attribute or a word that the taxonomy lacks.
    """
    _check_known(attributes)
    who = {"man": "he", "woman": "she"}.get(attributes.get("gender", ""), "the person")
    sentences = [_body(attributes, rng), _clothes(attributes, who, rng), _things(attributes, who, rng)]
    return " ".join(_sentence(text) for text in sentences if text)


def some_attributes(attributes: Mapping[str, str], rng: np.random.Generator) -> dict[str, str]:
    """A part of the attributes, as people mention it: a colour or a pattern only with the thing that has it."""
    share = rng.uniform(*MENTIONED)
    kept = {name for name in attributes if rng.random() < share}
    some = {name: word for name, word in attributes.items() if name in kept and _CARRIER.get(name, name) in kept}
    return some or dict(attributes)


def _check_known(attributes: Mapping[str, str]) -> None:
    for name, word in attributes.items():
        if word not in ATTRIBUTES.get(name, ()):
            known = ", ".join(ATTRIBUTES.get(name, ())) or "no attribute of this name"
            raise DataError(f"attribute {name!r} is {word!r}; the taxonomy has: {known}")


def _body(a: Mapping[str, str], rng: np.random.Generator) -> str:
    noun = a.get("gender", "person")
    figure = {"slim": "slim", "medium": "of medium build", "heavy": "heavy"}.get(a.get("build", ""), "")
    parts = [
        part for part in (_hair(a), {"beard": "a beard", "clean-shaven": "no beard"}.get(a.get("beard", ""))) if part
    ]
    start = f"a {figure} {noun}" if figure and " " not in figure else f"a {noun} {figure}".strip()
    text = start + (f" with {_listed(parts)}" if parts else "")
    if "posture" in a:
        text += str(rng.choice([" who ", ", who "])) + a["posture"]
    return f"{rng.choice(['this is', 'look for', 'the picture shows'])} {text}"


def _hair(a: Mapping[str, str]) -> str:
    style, colour = a.get("hair style"), a.get("hair colour", "")
    if style == "bald":
        return "no hair"
    if style in ("ponytail", "bun"):
        return f"{colour} hair in a {style}".strip()
    return " ".join(word for word in (style, colour, "hair") if word) if style or colour else ""


def _clothes(a: Mapping[str, str], who: str, rng: np.random.Generator) -> str:
    worn = []
    if "upper garment" in a or "upper colour" in a:
        worn.append(_upper(a))
    if "lower garment" in a or "lower colour" in a:
        garment = " ".join(a[name] for name in ("lower colour", "lower garment") if name in a)
        worn.append(f"a {garment}" if a.get("lower garment") == "skirt" else garment)
    if "shoe tone" in a:
        worn.append(f"{a['shoe tone']} shoes")
    rng.shuffle(worn)
    return f"{who} {rng.choice(['wears', 'is wearing', 'is dressed in'])} {_listed(worn)}" if worn else ""


def _upper(a: Mapping[str, str]) -> str:
    words = [a[name] for name in ("fastening", "upper colour", "upper garment") if name in a]
    text = _with_article(" ".join(words))
    pattern = a.get("pattern", "plain")
    if pattern == "plain":
        return text if "pattern" not in a else text + " without a pattern"
    tone = a.get("pattern tone", "")
    what = {"colour block": f"a {tone} lower part", "contrasting sleeves": f"{tone} sleeves", "logo": f"a {tone} logo"}
    return " ".join(f"{text} with {what.get(pattern, f'{tone} {pattern}')}".split())


def _things(a: Mapping[str, str], who: str, rng: np.random.Generator) -> str:
    things = [_with_article(f"{a.get('hat tone', '')} {a['hat']}".strip())] if "hat" in a else []
    things += [a["glasses"]] if "glasses" in a else []
    things += [f"a {a['mask']}"] if "mask" in a else []
    things += [_with_article(f"{a.get('bag tone', '')} {a['bag']}".strip())] if "bag" in a else []
    rng.shuffle(things)
    return f"{who} {rng.choice(['has', 'is seen with', 'can be told by'])} {_listed(things)}" if things else ""


def _with_article(text: str) -> str:
    return f"{'an' if text[:1] in 'aeiou' else 'a'} {text}"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
