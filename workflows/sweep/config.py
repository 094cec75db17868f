"""Settings of `psreid sweep`: which training, which of its settings are varied, how points are chosen and compared."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from workflows.config import StepConfig
from workflows.tracking.config import TrackedConfig

Value = bool | int | float | str
GRID_MOST_TRIALS = 10_000


class Range(StepConfig):
    """A stretch of numbers to draw from."""

    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    scale: Literal["linear", "log"] = "linear"
    """`log` draws every power of ten equally often."""
    integer: bool = False
    """Whether only whole numbers are drawn."""

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be smaller than high {self.high:g}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"a log scale needs low above 0, got {self.low:g}")
        return self


Axis = Annotated[list[Value], Field(min_length=1)] | Range
"""What one setting is varied over: a list of values, or a range."""


class Asha(StepConfig):
    """Asynchronous successive halving (Li et al. 2020): at each rung only the best share of trials goes on."""

    grace_steps: Annotated[int, Field(ge=1)]
    """Training steps that every trial gets; the first rung."""
    most_steps: Annotated[int, Field(ge=2)]
    """Training steps of a whole run; rungs lie between, each `reduction_factor` times the one before."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3.0
    """One in so many trials passes a rung."""

    @model_validator(mode="after")
    def _check(self) -> "Asha":
        if self.grace_steps >= self.most_steps:
            raise ValueError(f"grace_steps {self.grace_steps} must be smaller than most_steps {self.most_steps}")
        return self


class SweepConfig(TrackedConfig):
    """One training, many settings of it."""

    train: str = "psreid"
    """Which training every trial runs: a `psreid train` command."""
    out: str
    """Folder of the sweep: trials, table, best.yaml and the page."""
    settings: dict[str, Any]
    """Settings that all trials share, as `psreid train --config` takes them; workers and GPUs of a trial are among
    them."""
    space: dict[str, Axis]
    """Settings that are varied, by their path (such as losses.tau): a list of values, or low, high and scale."""
    search: Literal["grid", "random", "optuna"] = "grid"
    """`grid` runs every combination; `random` draws `trials` points; `optuna` lets a tree-structured Parzen estimator
    choose them one after the other."""
    trials: Annotated[int, Field(ge=1)] | None = None
    """Number of trials for `random` and `optuna`; a larger number continues a sweep."""
    metric: str = "eval_mAP"
    """Reported figure that trials are compared by."""
    mode: Literal["max", "min"] = "max"
    """Whether more or less of it is better."""
    asha: Asha | None = None
    """Stops poor trials early; the training must then report the metric on the way (`evaluate_every`)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides which points are drawn."""
    concurrent: Annotated[int, Field(ge=1)] | None = None
    """Trials at the same time; by default as many as the cluster's CPUs and GPUs hold."""
    retry_failed: bool = False
    """Whether trials that failed in an earlier run of this sweep are run again."""
    register_as: str | None = "psreid"
    """Registered model that the best trial becomes a version of, where tracking is set; null registers nothing."""

    @field_validator("space", mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        return _flat(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _check(self) -> "SweepConfig":
        if not self.space:
            raise ValueError("space names no setting to vary, so there is nothing to sweep over")
        if self.search == "grid":
            self._check_grid()
        elif self.trials is None:
            raise ValueError(f"trials is needed with search `{self.search}`: the number of points to try")
        return self

    def _check_grid(self) -> None:
        ranges = [name for name, axis in self.space.items() if isinstance(axis, Range)]
        if ranges:
            raise ValueError(
                f"a grid needs lists of values, and {', '.join(ranges)} has a range; give a list, or search `random` "
                "or `optuna`"
            )
        if self.trials is not None:
            raise ValueError("trials has no meaning with search `grid`, which runs every combination; drop it")
        if self.num_trials > GRID_MOST_TRIALS:
            raise ValueError(f"the grid has {self.num_trials} combinations, more than {GRID_MOST_TRIALS}; draw from it")

    @property
    def num_trials(self) -> int:
        """Trials of the whole sweep."""
        if self.trials is not None:
            return self.trials
        count = 1
        for axis in self.space.values():
            count *= len(axis) if isinstance(axis, list) else 1
        return count


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names as dotted ones: {losses: {tau: [..]}} is {losses.tau: [..]}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        is_range = isinstance(value, Mapping) and "low" in value
        if isinstance(value, Mapping) and not is_range:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
