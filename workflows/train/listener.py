"""What a training run tells others while it works: experiment trackers, dashboards, tests.

A listener lives in the driver. All its methods are called from one thread, which is not the main one, in the order
start, steps and evaluations as they come, finish or failure. A listener that raises is logged and left out from then
on: watching never stops a training run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunStart:
    """A run that begins or continues."""

    name: str
    """"psreid-<hash of the settings that decide the result>": the same for every restart of the same run."""
    config: Mapping[str, Any]
    """Every setting, as JSON would hold it."""
    out: str
    """Folder of the run."""
    step: int
    """Steps done by earlier runs of the same name; 0 for a fresh one."""
    total_steps: int


@dataclass(frozen=True)
class RunFinish:
    """A run that reached its last step."""

    model: str
    """Folder of the exported model, as `--model` takes it."""
    figures_file: str
    """JSON lines, one per step: what `on_step` was told."""
    sample_files: list[str] = field(default_factory=list)
    """PNG pictures of held-out frames with the predicted masks."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The last evaluation's figures: `eval_top1`, `eval_mAP`, and more."""


class TrainingListener:
    """Does nothing; subclasses override what they want to hear."""

    def on_start(self, run: RunStart) -> None:
        """Before the first step of this process."""

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """After optimizer step `step` (1 is the first, counted over both stages).

        `metrics` holds `loss` and every unweighted term (`reid`, `text`, `wbce`, ...), `stage`, `learning_rate`,
        `gradient_norm`, `seconds`, and the batch's own `top1`, `recalled`, `rejected`. After a restart the steps since
        the last checkpoint are told again, with the same figures except `seconds`.
        """

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """After an evaluation on held-out identities: `eval_top1`, `eval_mAP` (fractions of 1), `eval_queries`."""

    def on_finish(self, run: RunFinish) -> None:
        """After the model was exported."""

    def on_failure(self, message: str) -> None:
        """The run stopped early; the same command continues it."""
