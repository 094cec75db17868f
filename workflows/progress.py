"""What a step tells the person who runs it: progress while it works, a plan before, a summary after.

Progress goes to stderr and counts committed shards; nothing here knows Ray or the command line.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workflows.plan.work import StepWork
    from workflows.watching.figures import StepFigures


@dataclass(frozen=True)
class Summary:
    """What came out of a step."""

    headline: str
    """One sentence in plain words: what came out and where."""
    output: str
    """URI of the output folder or file."""
    figures: Mapping[str, float | int | str] = field(default_factory=dict)
    details: Sequence[str] = ()
    """Lines printed before the headline."""
    record: Mapping[str, Any] | None = None
    """The JSON object that `--json` prints; None prints headline, output and figures."""
    exit_code: int = 0


@dataclass(frozen=True)
class Plan:
    """What a step would do: counts by name, and how long it should take."""

    lines: Mapping[str, int | float | str]
    expected_s: float | None = None
    """On this machine, measured on a small sample of the real work; None where nothing can be measured."""
    work: "Sequence[StepWork]" = ()
    """What was measured, for laying it out on other machines; empty where the time does not depend on them."""


@dataclass(frozen=True)
class Price:
    """What an hour of the machines costs."""

    per_hour: float
    currency: str = "USD"


class Progress:
    """Says nothing: for tests and for callers who watch otherwise. Also the interface of `BarProgress`."""

    price: Price | None = None
    """Of the machines that the steps run on; None where nobody said."""

    def start(self, what: str, *, total: int, done: int = 0, unit: str = "shard") -> None:
        """Begins a step of `total` units, of which `done` were finished by an earlier run."""

    def advance(self, count: int = 1, *, rows: int = 0) -> None:
        """`count` more units are committed, with `rows` rows."""

    def say(self, line: str) -> None:
        """One line for the person."""

    def figures(self, figures: "StepFigures") -> None:
        """About once a minute: what the step has come to."""

    def finish(self) -> None:
        """Ends the step that was started."""


class BarProgress(Progress):
    """A bar on stderr (a line now and then where stderr is not a terminal)."""

    LINE_EVERY_S = 15.0  # between updates where stderr is a file

    def __init__(self) -> None:
        self._bar: Any = None
        self._rows = 0

    def start(self, what: str, *, total: int, done: int = 0, unit: str = "shard") -> None:
        from tqdm import tqdm

        self.finish()
        self._rows = 0
        on_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total, initial=done, desc=what, unit=unit, file=sys.stderr, dynamic_ncols=on_terminal,
            mininterval=0.2 if on_terminal else self.LINE_EVERY_S,
        )  # fmt: skip

    def advance(self, count: int = 1, *, rows: int = 0) -> None:
        if self._bar is not None:
            self._rows += rows
            self._bar.set_postfix_str(f"{self._rows} rows", refresh=False)
            self._bar.update(count)

    def say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def figures(self, figures: "StepFigures") -> None:
        self.say(figures.line())

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
