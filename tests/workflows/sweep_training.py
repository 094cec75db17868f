"""A real, tiny Ray Train run to sweep: a parabola in tau and lambda, with steps that can be slow, fail or diverge."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from workflows.config import StepConfig
from workflows.progress import Progress, Summary
from workflows.sweep.trainings import Training


class LossesConfig(StepConfig):
    tau: Annotated[float, Field(gt=0)] = 0.1
    """Sharpness."""
    reid: float = 1.0
    """Weight."""


class ToyConfig(StepConfig):
    out: str
    """Folder of the run."""
    losses: LossesConfig = LossesConfig()
    """Weights."""
    steps: int = 4
    """Steps."""
    step_s: float = 0.0
    """Seconds of a step."""
    fails_at_tau: float | None = None
    """The training raises with this tau."""


def run_toy(config: ToyConfig, progress: Progress, *, callbacks: Sequence[Any] = ()) -> Summary:
    import ray.train
    from ray.train.torch import TorchTrainer

    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        toy_loop,
        train_loop_config=config.model_dump(),
        scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(name="toy", storage_path=str(out / "train"), callbacks=list(callbacks)),
    )
    trainer.fit()
    (out / "model").mkdir(exist_ok=True)
    (out / "model" / "config.json").write_text("{}")
    return Summary("done", str(out / "model"), {})


def toy_loop(config: dict[str, Any]) -> None:
    import ray.train

    tau, reid = config["losses"]["tau"], config["losses"]["reid"]
    with (Path(config["out"]) / "steps.jsonl").open("a") as log:
        for step in range(1, config["steps"] + 1):
            time.sleep(config["step_s"])
            log.write(json.dumps({"step": step, "pid": os.getpid()}) + "\n")
            log.flush()
            if tau == config["fails_at_tau"]:
                raise RuntimeError(f"no training with tau {tau}")
            reached = step / config["steps"]
            ray.train.report({"step": step, "eval_mAP": reached * (1 - (tau - 0.2) ** 2 - (reid - 1) ** 2 / 10)})


TOY = Training("toy", "tests.workflows.sweep_training:ToyConfig", "tests.workflows.sweep_training:run_toy")
