"""Points of a search space: every combination, draws from a seed, or what Optuna asks for next.

A point is the value of each varied setting. The n-th drawn point depends on the seed and n alone, so that a sweep can
be continued, or made longer, and keeps the points it had.
"""

import itertools
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from workflows.ledger import make_shard_id
from workflows.storage import JSON
from workflows.sweep.config import Axis, Range, SweepConfig, Value

Point = dict[str, Value]
ASK_AGAIN = 50  # times that Optuna may propose a point which is known already


class PointSource(Protocol):
    """Where points come from."""

    def next(self) -> Point | None:
        """A point that was not given before, or None when there is none left."""

    def tell(self, point: Point, value: float | None) -> None:
        """The value a point came to; None when its trial failed."""


def trial_id(train: str, settings: Mapping[str, JSON], point: Point) -> str:
    """16 hex digits that depend on the settings of the trial alone."""
    return make_shard_id("trial", train, dict(settings), point)


def grid_points(space: Mapping[str, Axis]) -> list[Point]:
    """Every combination, the last setting varying fastest."""
    lists = [axis if isinstance(axis, list) else [] for axis in space.values()]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]


def drawn_point(space: Mapping[str, Axis], *, seed: int, number: int) -> Point:
    """The draw of that number; settings are drawn independently."""
    rng = np.random.default_rng([seed, number])
    return {name: _draw(axis, rng) for name, axis in space.items()}


def point_source(config: SweepConfig, known: Sequence[tuple[Point, float | None, bool]]) -> PointSource:
    """The source of a sweep's points. `known` are those of earlier runs: (point, value, whether it has ended)."""
    if config.search == "optuna":
        return OptunaPoints(config, known)
    if config.search == "grid":
        return ListedPoints(grid_points(config.space), [point for point, _, _ in known])
    numbers = range(config.num_trials)
    points = [drawn_point(config.space, seed=config.seed, number=number) for number in numbers]
    return ListedPoints(points, [point for point, _, _ in known])


class ListedPoints:
    """Points that are all known beforehand, less those that have a trial already."""

    def __init__(self, points: Sequence[Point], known: Sequence[Point]) -> None:
        taken = {_name(point) for point in known}
        self._left = [point for point in unique(points) if _name(point) not in taken][::-1]

    def next(self) -> Point | None:
        return self._left.pop() if self._left else None

    def tell(self, point: Point, value: float | None) -> None:
        """Listed points do not depend on values."""


class OptunaPoints:
    """Points that Optuna's TPE sampler proposes from the values so far."""

    def __init__(self, config: SweepConfig, known: Sequence[tuple[Point, float | None, bool]]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # constant_liar
        # A continued sweep must not begin with the same random draws again.
        sampler = optuna.samplers.TPESampler(seed=config.seed + len(known), constant_liar=True)
        direction = "maximize" if config.mode == "max" else "minimize"
        self._study = optuna.create_study(direction=direction, sampler=sampler)
        self._space = {name: _distribution(axis) for name, axis in config.space.items()}
        self._asked: dict[str, Any] = {}
        for point, value, has_ended in known:
            if has_ended:
                self._add(point, value)
            else:
                self._study.enqueue_trial(dict(point))
                self._asked[_name(point)] = self._study.ask(self._space)

    def next(self) -> Point | None:
        import optuna

        for _ in range(ASK_AGAIN):
            trial = self._study.ask(self._space)
            point: Point = dict(trial.params)
            if _name(point) not in self._asked:
                self._asked[_name(point)] = trial
                return point
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return None

    def tell(self, point: Point, value: float | None) -> None:
        import optuna

        state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
        self._study.tell(self._asked[_name(point)], value, state=state)

    def _add(self, point: Point, value: float | None) -> None:
        import optuna

        state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
        trial = optuna.trial.create_trial(params=dict(point), distributions=self._space, value=value, state=state)
        self._study.add_trial(trial)
        self._asked[_name(point)] = trial


def sample_points(config: SweepConfig) -> list[Point]:
    """Points to check before a sweep: all of a grid; else a draw, and the draw with each value or end of a range."""
    if config.search == "grid":
        return grid_points(config.space)
    first = drawn_point(config.space, seed=config.seed, number=0)
    points = [first]
    for name, axis in config.space.items():
        points += [first | {name: value} for value in (_ends(axis) if isinstance(axis, Range) else axis)]
    return points


def describe_point(point: Point) -> str:
    """A point in words."""
    texts = (f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in point.items())
    return ", ".join(texts)


def unique(points: Sequence[Point]) -> list[Point]:
    """The points without repetitions, in their order."""
    return list({_name(point): point for point in points}.values())


def _ends(axis: Range) -> tuple[Value, Value]:
    return _whole_ends(axis) if axis.integer else (axis.low, axis.high)


def _whole_ends(axis: Range) -> tuple[int, int]:
    return math.ceil(axis.low), math.floor(axis.high)


def _name(point: Point) -> str:
    return json.dumps(point, sort_keys=True)


def _draw(axis: Axis, rng: np.random.Generator) -> Value:
    if isinstance(axis, list):
        return axis[int(rng.integers(len(axis)))]
    if axis.integer and axis.scale == "linear":
        low, high = _whole_ends(axis)
        return int(rng.integers(low, high, endpoint=True))
    if axis.scale == "log":
        value = math.exp(rng.uniform(math.log(axis.low), math.log(axis.high)))
    else:
        value = rng.uniform(axis.low, axis.high)
    return round(value) if axis.integer else float(f"{value:.6g}")


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(axis, Range):
        return CategoricalDistribution(axis)
    is_log = axis.scale == "log"
    if axis.integer:
        return IntDistribution(*_whole_ends(axis), log=is_log)
    return FloatDistribution(axis.low, axis.high, log=is_log)
