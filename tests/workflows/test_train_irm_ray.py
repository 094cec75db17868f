"""`psreid train irmpp` on Ray Train with DeepSpeed: one worker, two, and a run that continues."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modeling.errors import ConfigError, DataError
from modeling.instruct_reid.checkpoint import load_irm, save_irm
from tests.modeling.instruct_reid.small_irm import small_irm
from tests.workflows.reid_archive import reid_archive
from workflows.progress import Progress
from workflows.train.irm_config import IrmTrainConfig
from workflows.train.irm_step import run_irm

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> str:
    return reid_archive(str(tmp_path_factory.mktemp("reid-ray") / "archive")).path("tables/frames")


def _config(frames: str, folder: Path, **changes: Any) -> IrmTrainConfig:
    start = folder / "start"
    if not start.exists():
        save_irm(small_irm("irm++"), start)
    settings = {
        "what": "irmpp", "frames": [frames], "out": str(folder / "out"), "steps": 4, "identities_per_step": 4,
        "learning_rate": 1e-3, "warmup_steps": 2, "start_from": str(start), "cpus_per_worker": 0.5,
        "checkpoint_every": 2,
    }  # fmt: skip
    return IrmTrainConfig(**(settings | changes))


def _losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "figures.jsonl").read_text().splitlines()]


def test_one_worker_learns_what_the_plain_loop_learns(ray_cluster: None, frames: str, tmp_path: Path) -> None:
    run_irm(_config(frames, tmp_path), Progress())
    run_irm(_config(frames, tmp_path, workers=0, out=str(tmp_path / "plain"), log_every=1), Progress())
    np.testing.assert_allclose(_losses(tmp_path / "out"), _losses(tmp_path / "plain"), rtol=2e-3)
    one, other = (load_irm(str(tmp_path / name / "model")) for name in ("out", "plain"))
    for (name, value), expected in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, atol=3e-3, rtol=0, msg=name)


def test_two_workers_continue_from_a_checkpoint(ray_cluster: None, frames: str, tmp_path: Path) -> None:
    whole = run_irm(_config(frames, tmp_path, workers=2, zero_stage=1, out=str(tmp_path / "whole")), Progress())
    config = _config(frames, tmp_path, workers=2, zero_stage=1)
    run_irm(config, Progress())
    (tmp_path / "out" / "run.json").unlink()  # as if the driver had died before it could say that the run is done
    again = run_irm(config, Progress())
    assert again.figures["loss"] == pytest.approx(whole.figures["loss"], rel=1e-4)
    assert len(_losses(tmp_path / "out")) == 4
    assert run_irm(config, Progress()).figures["loss"] == again.figures["loss"]
    with pytest.raises(ConfigError, match="seed"):
        run_irm(config.model_copy(update={"seed": 5}), Progress())


def test_held_out_identities_are_looked_for(ray_cluster: None, frames: str, tmp_path: Path) -> None:
    config = _config(frames, tmp_path, held_out_share=0.3, steps=2)
    on_ray = run_irm(config, Progress()).figures
    here = run_irm(config.model_copy(update={"workers": 0, "out": str(tmp_path / "here")}), Progress()).figures
    assert 0 < on_ray["eval_mAP"] <= 1
    assert on_ray["eval_mAP"] == pytest.approx(here["eval_mAP"], abs=0.05)
    assert run_irm(config, Progress()).figures["eval_mAP"] == on_ray["eval_mAP"]  # a finished run knows it


def test_too_few_held_out_identities_are_refused_at_once(frames: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="held_out_share"):
        run_irm(_config(frames, tmp_path, held_out_share=0.01, workers=0), Progress())
    assert not (tmp_path / "out" / "state.pt").exists()


def test_workers_must_share_evenly(frames: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot share it evenly"):
        _config(frames, tmp_path, workers=3)
