"""Trials over time: when each ran, when the sweep was interrupted, and how the best value rose.

Long stretches in which nothing ran (between a kill and the next run) are cut short, with a mark.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from workflows.sweep.charts import Scored
from workflows.sweep.records import Trial
from workflows.sweep.svg import axis_left, drawing, element, number_scale, path

WIDTH, LEFT, RIGHT = 1120.0, 64.0, 16.0
BEST_HEIGHT, ROW, MOST_ROW_SPACE = 130.0, 18.0, 900.0
LONG_GAP_SHARE, CUT_SHARE = 0.08, 0.02  # of the time in which something ran


@dataclass(frozen=True)
class Stretch:
    """A time in which a trial ran, seconds since 1970."""

    start_s: float
    end_s: float
    was_cut: bool
    """Whether it ended with the sweep's process, not with the trial."""


def timeline(trials: Sequence[Trial], scored: Sequence[Scored], *, is_higher_better: bool) -> Markup:
    """One bar a trial, below the values they came to and the best so far."""
    rows = [trial for trial in trials if trial.started_s]
    stretches = {trial.number: stretches_of(trial) for trial in rows}
    clock = _Clock([one for some in stretches.values() for one in some])
    row = min(ROW, MOST_ROW_SPACE / max(1, len(rows)))
    top = BEST_HEIGHT + 34
    bottom = top + row * len(rows)
    by_number = {one.trial.number: one for one in scored}
    parts = [*_best_so_far(scored, clock, is_higher_better), *_cuts(clock, bottom)]
    for index, trial in enumerate(rows):
        parts.append(_bars(trial, by_number.get(trial.number), stretches[trial.number], clock, top + index * row, row))
    *earlier, last = clock.ticks()
    for (at, label), anchor in [*((tick, "middle") for tick in earlier), (last, "end")]:
        parts.append(element("text", label, class_="tick", x=clock.place(at), y=bottom + 18, text_anchor=anchor))
    return drawing(*parts, width=WIDTH, height=bottom + 28, label="trials over time")


def stretches_of(trial: Trial) -> list[Stretch]:
    """When a trial ran: a session that was killed lasts until its last report."""
    found = []
    for index, start in enumerate(trial.started_s):
        is_last = index + 1 == len(trial.started_s)
        until = float("inf") if is_last else trial.started_s[index + 1]
        told = [report.time_s for report in trial.reports if start <= report.time_s < until]
        end = trial.ended_s if is_last and trial.ended_s is not None else max(told, default=start)
        found.append(Stretch(start, max(start, end), was_cut=not (is_last and trial.has_ended)))
    return found


class _Clock:
    """From seconds since 1970 to pixels, with long pauses cut."""

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        busy: list[list[float]] = []
        for one in sorted(stretches, key=lambda one: one.start_s):
            if busy and one.start_s <= busy[-1][1]:
                busy[-1][1] = max(busy[-1][1], one.end_s)
            else:
                busy.append([one.start_s, one.end_s])
        self.start_s = busy[0][0] if busy else 0.0
        working = sum(end - start for start, end in busy) or 1.0
        self.cuts = [
            (before[1], after[0])
            for before, after in itertools.pairwise(busy)
            if after[0] - before[1] > LONG_GAP_SHARE * working
        ]
        self._pause_s = CUT_SHARE * working
        self._shown_s = max(1e-6, self._squeezed(busy[-1][1]) if busy else 1.0)

    def place(self, time_s: float) -> float:
        return LEFT + self._squeezed(time_s) / self._shown_s * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[tuple[float, str]]:
        """(time, label): the time since the start, at the start and after each pause, and at the end."""
        ends = [self.start_s, *(after for _, after in self.cuts), self.start_s + self._shown_s + self._cut_s()]
        return [(at, _duration(at - self.start_s)) for at in ends]

    def _cut_s(self) -> float:
        return sum(after - before - self._pause_s for before, after in self.cuts)

    def _squeezed(self, time_s: float) -> float:
        shown = time_s - self.start_s
        for before, after in self.cuts:
            passed = min(max(time_s - before, 0.0), after - before)
            shown -= passed * (1 - self._pause_s / (after - before))
        return shown


def _best_so_far(scored: Sequence[Scored], clock: _Clock, is_higher_better: bool) -> list[Markup]:
    ended = sorted((one for one in scored if one.trial.ended_s), key=lambda one: one.trial.ended_s or 0.0)
    if not ended:
        return []
    y = number_scale([one.value for one in ended], (BEST_HEIGHT, 16.0))
    parts = [axis_left(y, x=LEFT, right=WIDTH - RIGHT, y=(BEST_HEIGHT, 16.0))]
    steps: list[tuple[float, float]] = []
    best: float | None = None
    for one in ended:
        is_better = best is None or (one.value > best if is_higher_better else one.value < best)
        x = clock.place(one.trial.ended_s or 0.0)
        if is_better:
            steps += [(x, y.place(best if best is not None else one.value)), (x, y.place(one.value))]
            best = one.value
    assert best is not None, "there is an ended trial"
    parts.append(path([*steps, (WIDTH - RIGHT, y.place(best))], class_="best-line"))
    for one in ended:
        dot = element(
            "circle",
            class_=f"dot {one.trial.status}",
            cx=clock.place(one.trial.ended_s or 0.0),
            cy=y.place(one.value),
            r=4.5,
        )
        parts.append(element("g", element("title", one.title), dot, class_="trial", **one.marks))
    return parts


def _bars(
    trial: Trial, scored: Scored | None, stretches: Sequence[Stretch], clock: _Clock, y: float, row: float
) -> Markup:
    height = max(2.0, row - 4)
    parts: list[Markup] = [
        element("title", scored.title if scored else f"trial {trial.number}: {trial.error or trial.status}")
    ]
    if row >= 12:
        parts.append(
            element("text", f"{trial.number}", class_="tick", x=LEFT - 10, y=y + row / 2 + 2, text_anchor="end")
        )
    for one in stretches:
        x, end = clock.place(one.start_s), clock.place(one.end_s)
        kind = "cut" if one.was_cut else trial.status
        parts.append(element("rect", class_=f"bar {kind}", x=x, y=y, width=max(2.0, end - x), height=height, rx=3))
    marks = scored.marks if scored else {"data_trial": trial.number, "style": "--share:0%"}
    return element("g", *parts, class_="trial", **marks)


def _cuts(clock: _Clock, bottom: float) -> list[Markup]:
    parts = []
    for before, after in clock.cuts:
        x = (clock.place(before) + clock.place(after)) / 2
        parts.append(element("line", class_="pause", x1=x, x2=x, y1=BEST_HEIGHT + 22, y2=bottom))
        label = f"interrupted, {_duration(after - before)}"
        parts.append(element("text", label, class_="tick", x=x, y=BEST_HEIGHT + 18, text_anchor="middle"))
    return parts


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
