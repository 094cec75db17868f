"""Scales, axes and elements of inline SVG. Every text and attribute is escaped; colours come from the page's style."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

LOG_FROM = 8.0  # the ratio of largest to smallest from which numbers above zero get a logarithmic axis
PAD = 0.06  # of an axis, left free at either end


def element(name: str, *children: object, **attributes: object) -> Markup:
    """An element; `class_` is class, `_` in other names is `-`, and None leaves an attribute out."""
    written = "".join(
        f' {"class" if key == "class_" else key.replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(child if isinstance(child, Markup) else escape(str(child)) for child in children)
    return Markup(f"<{name}{written}>{inside}</{name}>")


@dataclass(frozen=True)
class Scale:
    """From values to pixels, with the ticks to draw."""

    place: Callable[[object], float]
    ticks: Sequence[tuple[float, str]]
    """(pixel, label)."""


def number_scale(
    values: Iterable[float], pixels: tuple[float, float], *, is_log: bool = False, ticks: Sequence[float] | None = None
) -> Scale:
    """A scale over the values with some room; `ticks` are values to label, by default round ones."""
    low, high = min(values := list(values)), max(values)
    bend: Callable[[float], float] = math.log10 if is_log else float
    start, end = bend(low), bend(high)
    room = (end - start) * PAD or abs(end) * PAD or 0.5
    start, end = start - room, end + room

    def place(value: object) -> float:
        share = (bend(float(value)) - start) / (end - start)  # type: ignore[arg-type]
        return pixels[0] + share * (pixels[1] - pixels[0])

    shown = list(ticks) if ticks is not None else _round_ticks(start, end, is_log=is_log)
    return Scale(place, [(place(value), short(value)) for value in shown])


def word_scale(values: Iterable[object], pixels: tuple[float, float]) -> Scale:
    """A place for each different value, in their order."""
    names = list(dict.fromkeys(str(value) for value in values))
    width = (pixels[1] - pixels[0]) / len(names)
    places = {name: pixels[0] + (index + 0.5) * width for index, name in enumerate(names)}
    return Scale(lambda value: places[str(value)], [(place, name) for name, place in places.items()])


def is_number(value: object) -> bool:
    """Whether a value goes on a number axis."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def wants_log(values: Sequence[float]) -> bool:
    """Whether the values span so much that only a logarithmic axis shows them."""
    return min(values) > 0 and max(values) / min(values) >= LOG_FROM


def short(value: object) -> str:
    """A number as a label."""
    if not is_number(value):
        return str(value)
    text = f"{value:.4g}"
    return text.replace("e-0", "e-").replace("e+0", "e")


def axis_bottom(scale: Scale, *, y: float, x: tuple[float, float], label: str = "") -> Markup:
    """A horizontal axis with ticks below it; labels that would overlap are left out."""
    parts = [element("line", class_="axis", x1=x[0], x2=x[1], y1=y, y2=y)]
    free_from = -math.inf
    for place, text in scale.ticks:
        if not x[0] - 1 <= place <= x[1] + 1:
            continue
        parts.append(element("line", class_="axis", x1=place, x2=place, y1=y, y2=y + 4))
        half = 3.4 * len(text)
        if place - half > free_from:
            parts.append(element("text", text, class_="tick", x=place, y=y + 17, text_anchor="middle"))
            free_from = place + half
    if label:
        parts.append(element("text", label, class_="axis-name", x=(x[0] + x[1]) / 2, y=y + 36, text_anchor="middle"))
    return Markup("").join(parts)


def axis_left(scale: Scale, *, x: float, right: float, y: tuple[float, float]) -> Markup:
    """Horizontal grid lines with their values to the left."""
    parts = []
    for place, text in scale.ticks:
        if min(y) - 1 <= place <= max(y) + 1:
            parts.append(element("line", class_="grid", x1=x, x2=right, y1=place, y2=place))
            parts.append(element("text", text, class_="tick", x=x - 8, y=place + 4, text_anchor="end"))
    return Markup("").join(parts)


def path(points: Iterable[tuple[float, float]], **attributes: object) -> Markup:
    """A line through the points."""
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("polyline", points=steps, fill="none", **attributes)


def drawing(*children: object, width: float, height: float, label: str) -> Markup:
    """An SVG that fills its place; `label` says what it shows to those who do not see it."""
    return element("svg", *children, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label)


def _round_ticks(start: float, end: float, *, is_log: bool) -> list[float]:
    if is_log:
        decades = range(math.floor(start), math.ceil(end) + 1)
        factors = (1, 2, 5) if end - start < 3 else (1,)
        return [factor * 10.0**decade for decade in decades for factor in factors]
    raw = (end - start) / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw)
    first = math.ceil(start / step)
    return [round(index * step, 12) for index in range(first, math.floor(end / step) + 1)]


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
