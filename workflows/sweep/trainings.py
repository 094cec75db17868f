"""The trainings that can be swept. One is: a class of settings with `out`, and a function that runs them on Ray Train.

Adding a training is a line in TRAININGS: the function takes the settings, a Progress and `callbacks=` (Ray Train's),
and reports `step` and its figures through `ray.train.report`. Whatever settings it has can be swept. Ray tasks that it
starts itself must name scheduling_strategy="DEFAULT", or Ray puts them into the placement group of Tune's trial.
"""

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modeling.errors import ConfigError
from workflows.config import StepConfig, load_config
from workflows.progress import Progress, Summary
from workflows.sweep.config import SweepConfig, Value
from workflows.sweep.space import describe_point, sample_points
from workflows.tracking.config import TRACKING_SETTINGS


@dataclass(frozen=True)
class Training:
    """One `psreid train` command, found when it is used. Travels to the workers, so it holds names alone."""

    name: str
    config_path: str
    """"module:Class" of its settings."""
    run_path: str
    """"module:function" that runs them."""

    @property
    def config_class(self) -> type[StepConfig]:
        return _found(self.config_path)

    def configure(self, settings: Mapping[str, Any], point: Mapping[str, Value], *, out: str) -> StepConfig:
        """The settings of one trial, checked; ConfigError names the setting by its path."""
        flags = {**copy.deepcopy(dict(settings)), **point, "out": out}
        for name in TRACKING_SETTINGS & set(self.config_class.model_fields):
            flags.setdefault(name, None)
        if "what" in self.config_class.model_fields:
            flags.setdefault("what", self.name)
        return load_config(self.config_class, flags=flags)

    def run(self, config: StepConfig, callbacks: Sequence[Any]) -> Summary:
        """Trains; `callbacks` are Ray Train's."""
        run: Callable[..., Summary] = _found(self.run_path)
        return run(config, Progress(), callbacks=callbacks)

    def resources(self, config: StepConfig) -> tuple[float, float]:
        """(CPUs, GPUs) that one trial occupies."""
        workers = getattr(config, "workers", 1)
        return workers * getattr(config, "cpus_per_worker", 1.0), workers * float(getattr(config, "gpus_per_worker", 0))


def find_training(name: str) -> Training:
    """The training of that name; ConfigError naming those there are."""
    if name not in TRAININGS:
        raise ConfigError(f"train is {name!r}; the trainings that can be swept are {', '.join(TRAININGS)}.")
    return TRAININGS[name]


def check_points(config: SweepConfig, training: Training) -> StepConfig:
    """The settings of a first trial, after every point of a grid (or the ends of every range) was checked."""
    checked = []
    for point in sample_points(config):
        try:
            checked.append(training.configure(config.settings, point, out=config.out))
        except ConfigError as error:
            raise ConfigError(f"the trial with {describe_point(point)} cannot run: {error}") from None
    _check_metric(config, checked[0])
    return checked[0]


def _check_metric(config: SweepConfig, first: StepConfig) -> None:
    """Trials can be compared by what they tell alone: held-out figures need held-out identities, ASHA needs them
    on the way."""
    if config.metric.startswith("eval_") and getattr(first, "held_out_share", None) == 0:
        raise ConfigError(
            f"trials are compared by {config.metric}, and held_out_share is 0, which holds no identity out to evaluate "
            "on. Set settings.held_out_share, for example to 0.2."
        )
    if config.asha is not None and config.metric.startswith("eval_") and getattr(first, "evaluate_every", None) == 0:
        raise ConfigError(
            f"asha compares trials by {config.metric} while they train, and evaluate_every is 0, which evaluates at "
            f"the end alone. Set settings.evaluate_every, for example to {config.asha.grace_steps}."
        )


def _found(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


TRAININGS = {
    "psreid": Training("psreid", "workflows.train.config:PsReidTrainConfig", "workflows.train.psreid:run_psreid"),
    **{
        name: Training(name, "workflows.train.irm_config:IrmTrainConfig", "workflows.train.irm_step:run_irm")
        for name in ("irm", "irmpp")
    },
}
