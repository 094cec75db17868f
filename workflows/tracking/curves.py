"""Training curves as a picture: one small chart per figure, drawn by matplotlib without a display."""

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence

CHART_INCHES = (3.2, 2.2)
COLUMNS = 4
NOT_DRAWN = frozenset({"step", "seconds", "seconds_per_step", "stage"})
DOTS_PER_INCH = 110


def read_curves(lines: Iterable[str]) -> dict[str, list[tuple[float, float]]]:
    """(step, value) by figure, from JSON lines that each hold `step` and figures; later lines win a step."""
    curves: dict[str, dict[float, float]] = {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed
        for name, value in row.items():
            if name not in NOT_DRAWN and isinstance(value, int | float) and math.isfinite(value):
                curves.setdefault(name, {})[row["step"]] = value
    return {name: sorted(points.items()) for name, points in curves.items()}


def draw_curves(curves: Mapping[str, Sequence[tuple[float, float]]], *, title: str) -> bytes:
    """A PNG with a chart of each curve over the steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = sorted(curves)
    columns = max(1, min(COLUMNS, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    figure = Figure(figsize=(CHART_INCHES[0] * columns, CHART_INCHES[1] * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    for number, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, number + 1)
        steps, values = zip(*curves[name], strict=True)
        axes.plot(steps, values, linewidth=1.2, color="#006d7c")
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(visible=True, alpha=0.25)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DOTS_PER_INCH)
    return picture.getvalue()
