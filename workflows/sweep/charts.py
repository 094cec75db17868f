"""The charts of a sweep's page. Each takes trials and gives one SVG; a trial has the same mark in all of them.

Elements of a trial carry `data-trial`, so that the page can point at it everywhere, and `--share`: 0 % for the worst
value of the sweep, 100 % for the best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from workflows.sweep.config import Axis, Range
from workflows.sweep.papers import Published
from workflows.sweep.records import Trial
from workflows.sweep.svg import (
    Scale,
    axis_bottom,
    axis_left,
    drawing,
    element,
    is_number,
    number_scale,
    path,
    short,
    wants_log,
    word_scale,
)

WIDTH, HEIGHT = 560.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 16.0, 18.0, 48.0
PLOT_X, PLOT_Y = (LEFT, WIDTH - RIGHT), (HEIGHT - BOTTOM, TOP)


@dataclass(frozen=True)
class Scored:
    """A trial with its value."""

    trial: Trial
    value: float
    share: float
    """0 the worst of the sweep, 1 the best."""
    title: str
    """What a pointer on it says."""

    @property
    def marks(self) -> dict[str, object]:
        """The attributes of every element of this trial."""
        return {"data_trial": self.trial.number, "style": f"--share:{self.share * 100:.0f}%"}


def response(
    name: str, axis: Axis, scored: Sequence[Scored], metric: str, paper: Published | None, *, best: bool
) -> Markup:
    """The metric over one setting: a dot a trial, and a line through the best at each value of a list.

    `best` says whether more is better.
    """
    values = [one.trial.point[name] for one in scored]
    x = setting_scale(axis, values, PLOT_X, paper)
    y = number_scale([one.value for one in scored], PLOT_Y)
    parts = [axis_left(y, x=PLOT_X[0], right=PLOT_X[1], y=PLOT_Y), axis_bottom(x, y=PLOT_Y[0], x=PLOT_X, label=name)]
    if paper is not None and all(is_number(value) for value in values):
        parts.append(_papers_choice(x, paper))
    if isinstance(axis, list):
        best_at: dict[object, float] = {}
        choose = max if best else min
        for one in scored:
            value = one.trial.point[name]
            best_at[value] = choose(best_at.get(value, one.value), one.value)
        parts.append(
            path(
                ((x.place(v), y.place(m)) for v, m in sorted(best_at.items(), key=lambda i: x.place(i[0]))),
                class_="best-line",
            )
        )
    for one in scored:
        parts.append(_dot(one, x.place(one.trial.point[name]), y.place(one.value)))
    return drawing(*parts, width=WIDTH, height=HEIGHT, label=f"{metric} over {name}")


def papers_curve(paper: Published) -> Markup:
    """The paper's own points, in percent."""
    everything = [point for points in paper.points.values() for point in points]
    width, height = 300.0, 220.0
    plot_x, plot_y = (46.0, width - 58), (height - 44, 14.0)
    x = number_scale([value for value, _ in everything], plot_x, ticks=sorted({value for value, _ in everything}))
    y = number_scale([score for _, score in everything], plot_y)
    parts = [
        axis_left(y, x=plot_x[0], right=plot_x[1], y=plot_y),
        axis_bottom(x, y=plot_y[0], x=plot_x, label=paper.symbol),
    ]
    for index, (score, points) in enumerate(paper.points.items()):
        placed = [(x.place(value), y.place(percent)) for value, percent in points]
        parts.append(path(placed, class_=f"paper-line paper-{index}"))
        for (value, percent), (cx, cy) in zip(points, placed, strict=True):
            title = element("title", f"{paper.symbol} {short(value)}: {score} {percent} %")
            parts.append(element("circle", title, class_=f"paper-dot paper-{index}", cx=cx, cy=cy, r=4))
        parts.append(element("text", score, class_="line-name", x=placed[-1][0] + 10, y=placed[-1][1] + 4))
    return drawing(*parts, width=width, height=height, label=f"{paper.paper}: scores in percent over {paper.symbol}")


def heat_map(names: tuple[str, str], space: Mapping[str, Axis], scored: Sequence[Scored]) -> Markup:
    """The best value at each combination of two listed settings."""
    columns, rows = (list(space[name]) for name in names)
    best: dict[tuple[object, object], Scored] = {}
    for one in scored:
        cell = (one.trial.point[names[0]], one.trial.point[names[1]])
        if cell not in best or one.share > best[cell].share:
            best[cell] = one
    size = min(92.0, 460.0 / max(len(columns), 1))
    height = min(size * 0.62, 54.0)
    left, top = 96.0, 26.0
    parts = []
    for row_number, row in enumerate(rows):
        y = top + row_number * height
        parts.append(element("text", short(row), class_="tick", x=left - 10, y=y + height / 2 + 4, text_anchor="end"))
        for column_number, column in enumerate(columns):
            found = best.get((column, row))
            parts.append(_cell(found, left + column_number * size, y, size, height))
    for number, column in enumerate(columns):
        parts.append(
            element(
                "text", short(column), class_="tick", x=left + (number + 0.5) * size, y=top - 8, text_anchor="middle"
            )
        )
    bottom = top + len(rows) * height
    parts.append(
        element(
            "text", names[0], class_="axis-name", x=left + len(columns) * size / 2, y=bottom + 20, text_anchor="middle"
        )
    )
    middle = top + len(rows) * height / 2
    parts.append(
        element(
            "text",
            names[1],
            class_="axis-name",
            x=16,
            y=middle,
            text_anchor="middle",
            transform=f"rotate(-90 16 {middle:.0f})",
        )
    )
    return drawing(
        *parts,
        width=left + len(columns) * size + 8,
        height=bottom + 30,
        label=f"best value by {names[0]} and {names[1]}",
    )


def parallel(space: Mapping[str, Axis], scored: Sequence[Scored], metric: str) -> Markup:
    """Every trial as a line across all settings to its value."""
    width, height, top, bottom = 1120.0, 320.0, 34.0, 300.0
    scales: list[tuple[str, Scale]] = []
    for name, axis in space.items():
        values = [one.trial.point[name] for one in scored]
        scales.append((name, setting_scale(axis, values, (bottom, top), None)))
    scales.append((metric, number_scale([one.value for one in scored], (bottom, top))))
    gap = (width - 200) / max(1, len(scales) - 1)
    places = [100 + index * gap for index in range(len(scales))]
    parts = []
    for one in sorted(scored, key=lambda one: one.share):
        values = [*(one.trial.point[name] for name in space), one.value]
        points = [(x, scale.place(value)) for x, (_, scale), value in zip(places, scales, values, strict=True)]
        parts.append(
            element(
                "g",
                element("title", one.title),
                path(points, class_="thread"),
                path(points, class_="thread-reach"),
                class_="trial",
                **one.marks,
            )
        )
    for x, (name, scale) in zip(places, scales, strict=True):
        parts.append(element("line", class_="axis", x1=x, x2=x, y1=top - 6, y2=bottom + 6))
        parts.append(element("text", name, class_="axis-name strong", x=x, y=18, text_anchor="middle"))
        parts += [
            element("text", text, class_="tick halo", x=x + 7, y=y + 4)
            for y, text in scale.ticks
            if top - 6 <= y <= bottom + 6
        ]
    return drawing(*parts, width=width, height=height, label=f"every trial: {', '.join(space)} and {metric}")


def learning(scored: Sequence[Scored], metric: str) -> Markup:
    """The metric over training steps, a line a trial."""
    told = {
        one.trial.number: [(r.step, r.figures[metric]) for r in one.trial.reports if metric in r.figures]
        for one in scored
    }
    everything = [point for points in told.values() for point in points]
    x = number_scale([step for step, _ in everything], PLOT_X)
    y = number_scale([value for _, value in everything], PLOT_Y)
    parts = [axis_left(y, x=PLOT_X[0], right=PLOT_X[1], y=PLOT_Y), axis_bottom(x, y=PLOT_Y[0], x=PLOT_X, label="step")]
    for one in sorted(scored, key=lambda one: one.share):
        points = [(x.place(step), y.place(value)) for step, value in told[one.trial.number]]
        end = element("circle", class_=f"end {one.trial.status}", cx=points[-1][0], cy=points[-1][1], r=3.5)
        parts.append(
            element(
                "g",
                element("title", one.title),
                path(points, class_="thread"),
                path(points, class_="thread-reach"),
                end,
                class_="trial",
                **one.marks,
            )
        )
    return drawing(*parts, width=WIDTH, height=HEIGHT, label=f"{metric} over steps")


def setting_scale(axis: Axis, values: Sequence[object], pixels: tuple[float, float], paper: Published | None) -> Scale:
    """The axis of a setting: numbers where all values are, else a place for each word."""
    if isinstance(axis, Range):
        numbers = [axis.low, axis.high]
        return number_scale([*numbers, *_near(paper, numbers)], pixels, is_log=axis.scale == "log")
    if not all(is_number(value) for value in axis):
        return word_scale(axis, pixels)
    listed = sorted({float(value) for value in axis})
    return number_scale([*listed, *_near(paper, listed)], pixels, is_log=wants_log(listed), ticks=listed)


def _near(paper: Published | None, values: Sequence[float]) -> list[float]:
    """The paper's value where showing it does not squeeze ours."""
    if paper is None or paper.chosen is None:
        return []
    spread = max(values) - min(values)
    return [paper.chosen] if min(values) - spread <= paper.chosen <= max(values) + spread and paper.chosen > 0 else []


def _papers_choice(x: Scale, paper: Published) -> Markup:
    """Where the paper's own value lies, if it lies on the axis."""
    parts = []
    if paper.tried is not None:
        low, high = (min(max(x.place(value), PLOT_X[0]), PLOT_X[1]) for value in paper.tried)
        parts.append(
            element(
                "rect",
                class_="paper-band",
                x=low,
                y=PLOT_Y[1],
                width=max(0.0, high - low),
                height=PLOT_Y[0] - PLOT_Y[1],
            )
        )
    if paper.chosen is not None and PLOT_X[0] <= (place := x.place(paper.chosen)) <= PLOT_X[1]:
        anchor = "end" if place > (PLOT_X[0] + PLOT_X[1]) / 2 else "start"
        parts.append(element("line", class_="paper-mark", x1=place, x2=place, y1=PLOT_Y[1] - 6, y2=PLOT_Y[0]))
        label = f"{paper.paper}: {short(paper.chosen)}"
        parts.append(
            element(
                "text",
                label,
                class_="paper-name",
                x=place + (-6 if anchor == "end" else 6),
                y=PLOT_Y[1] + 2,
                text_anchor=anchor,
            )
        )
    return Markup("").join(parts)


def _dot(one: Scored, x: float, y: float) -> Markup:
    mark = element("circle", class_=f"dot {one.trial.status}", cx=x, cy=y, r=5)
    reach = element("circle", class_="reach", cx=x, cy=y, r=11)
    return element("g", element("title", one.title), mark, reach, class_="trial", **one.marks)


def _cell(found: Scored | None, x: float, y: float, width: float, height: float) -> Markup:
    box = {"x": x + 1, "y": y + 1, "width": width - 2, "height": height - 2, "rx": 4}
    if found is None:
        return element("rect", class_="cell empty", **box)
    text = element(
        "text", f"{found.value:.3f}", class_="cell-value", x=x + width / 2, y=y + height / 2 + 4, text_anchor="middle"
    )
    return element(
        "g", element("title", found.title), element("rect", class_="cell", **box), text, class_="trial", **found.marks
    )
