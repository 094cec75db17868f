"""ZeRO 1, 2 and 3 on two Ray Train workers against one plain process: equal curves, and checkpoints that fit all.

Tolerance: in float32 the loss of every step agrees to 1e-4 of its value. What differs is the order of additions.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling.errors import ConfigError, JobError
from modeling.ps_reid.checkpoint import load_model
from tests.workflows.training_run import make_inputs, train_config, train_here
from workflows.progress import Progress
from workflows.train.config import PsReidTrainConfig
from workflows.train.listener import RunFinish, RunStart, TrainingListener
from workflows.train.memory import memory_plan, sizes_of
from workflows.train.worker import StageRun, Task

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

TOLERANCE = 1e-4
ZERO_STAGES = (1, 2, 3)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_inputs(tmp_path_factory.mktemp("training"))


def settings(inputs: dict[str, Any], out: Path, steps: int, **changes: Any) -> PsReidTrainConfig:
    """One stage that trains parts of both, three batches shared by two workers."""
    trains = ["query_adapter", "target_adapter", "lora", "mask_decoder", "mask_prompt", "control_tokens", "grounding"]
    stage = {"steps": steps, "trains": trains, "learning_rate": 1e-3, "weight_decay": 0.05}
    return train_config(
        inputs, out, stage1=stage, stage2={"steps": 0}, eval_queries=0, targets_per_identity=1, **changes
    )  # three targets: the shares differ in size


def curve(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "figures.jsonl").read_text().splitlines()]


def continue_with_zero(told: Mapping[str, Any]) -> None:
    """Every ZeRO stage in turn, in one pair of workers."""
    import os

    os.environ["DS_ACCELERATOR"] = "cpu"
    torch.set_num_threads(1)
    import ray.train

    context = ray.train.get_context()
    for task in told["tasks"]:
        run = StageRun(task, context.get_world_rank(), context.get_world_size(), torch.device("cpu"))
        run.run()
        (Path(task.config.out) / f"bytes-{context.get_world_rank()}").write_text(str(run._engine.optimizer_bytes()))


def test_zero_stages_continue_each_other_on_one_curve(
    inputs: dict[str, Any], tmp_path: Path, ray_cluster: None
) -> None:
    """Two steps alone, two on two workers under ZeRO, two alone again: the curve of six steps alone."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from workflows.train.catalogue import read_frames
    from workflows.train.mailbox import open_mailbox

    train_here(settings(inputs, tmp_path / "alone", 6))
    train_here(settings(inputs, tmp_path / "start", 2))
    tables, mailbox, tasks = read_frames(inputs["frames"]), open_mailbox(), []
    for zero_stage in ZERO_STAGES:
        out = tmp_path / f"zero{zero_stage}"
        shutil.copytree(tmp_path / "start", out)
        tasks.append(Task(settings(inputs, out, 4, workers=2, zero_stage=zero_stage), 1, tables, mailbox))
    TorchTrainer(
        continue_with_zero,
        train_loop_config={"tasks": tasks},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="zero", storage_path=str(tmp_path / "ray")),
    ).fit()
    alone = curve(tmp_path / "alone")
    for zero_stage in ZERO_STAGES:
        out = tmp_path / f"zero{zero_stage}"
        train_here(settings(inputs, out, 6))
        assert curve(out) == pytest.approx(alone, rel=TOLERANCE), f"ZeRO {zero_stage}"
        sizes = sizes_of(load_model(inputs["start_from"]), tasks[0].settings.trains)
        planned = memory_plan(sizes, zero_stage=zero_stage, gpus=2, precision="fp32").optimizer
        held = [int((out / f"bytes-{rank}").read_text()) for rank in (0, 1)]
        assert held == pytest.approx([planned, planned], rel=0.01), "what the memory plan says"


class Notes(TrainingListener):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def on_start(self, run: RunStart) -> None:
        self.heard.append(("start", run))

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.heard.append(("step", (step, dict(metrics))))

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self.heard.append(("evaluation", dict(metrics)))

    def on_finish(self, run: RunFinish) -> None:
        self.heard.append(("finish", run))

    def on_failure(self, message: str) -> None:
        self.heard.append(("failure", message))


class Fails(TrainingListener):
    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        raise RuntimeError("the tracking server is away")


def test_a_whole_run_is_told_to_listeners_and_not_run_twice(
    inputs: dict[str, Any], tmp_path: Path, ray_cluster: None
) -> None:
    from workflows.train.psreid import run_psreid

    notes = Notes()
    config = train_config(inputs, tmp_path / "out", workers=2, zero_stage=2, held_out_share=0.4)
    summary = run_psreid(config, Progress(), listeners=[Fails(), notes])
    kinds = [kind for kind, _ in notes.heard]
    assert kinds == ["start", *["step"] * 6, "evaluation", "finish"]
    told = [said[1]["loss"] for kind, said in notes.heard if kind == "step"]
    assert told == curve(tmp_path / "out")
    finish = notes.heard[-1][1]
    assert summary.output == finish.model == str(tmp_path / "out/model")
    assert 0 <= finish.metrics["eval_mAP"] <= 1 and summary.figures["eval_mAP"] == finish.metrics["eval_mAP"]

    again = Notes()
    run_psreid(config, Progress(), listeners=[again])
    assert [kind for kind, _ in again.heard] == ["finish"]
    with pytest.raises(ConfigError, match="seed: there 0, now 1"):
        run_psreid(config.model_copy(update={"seed": 1}), Progress())


def test_a_diverging_run_says_what_to_do(inputs: dict[str, Any], tmp_path: Path, ray_cluster: None) -> None:
    from workflows.train.psreid import run_psreid

    config = train_config(
        inputs, tmp_path / "out", stage1={"steps": 30, "learning_rate": 1e30}, eval_queries=0, gradient_clip=1e30
    )
    with pytest.raises(JobError, match=r"Lower stage1.learning_rate"):
        run_psreid(config, Progress())
