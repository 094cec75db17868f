"""`psreid bench attention` on Ray: both attentions trained as long, measured under their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modeling.ps_reid.checkpoint import read_model_config
from ray_jobs.cli import main
from tests.workflows.synthetic_archive import make_archive
from tests.workflows.training_run import make_inputs


@pytest.mark.long
def test_joint_trains_as_long_as_separated_did(tmp_path: Path) -> None:
    inputs, bench = make_inputs(tmp_path), make_archive(str(tmp_path / "bench"), split="test")
    training = {**inputs, "stage1": {"steps": 0}, "stage2": {"steps": 6}, "precision": "fp32", "held_out_share": 0}
    (tmp_path / "training.yaml").write_text(json.dumps(training))
    out = tmp_path / "out"
    asked = ["bench", "attention", bench.uri, "--training", str(tmp_path / "training.yaml"), "--gallery", "TestG50"]
    ended = subprocess.run(
        [sys.executable, "-m", "ray_jobs", *asked, "--out", str(out), "--json", "--quiet"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    separated, joint = json.loads(ended.stdout.splitlines()[-1])["attention"]
    assert (separated["attention"], separated["steps"], joint["attention"]) == ("separated", 6, "joint")
    assert [read_model_config(str(out / name / "model")).attention for name in ("separated", "joint")] == [
        "separated",
        "joint",
    ]
    for way in (separated, joint):
        rows = [json.loads(line) for line in (out / way["attention"] / "figures.jsonl").read_text().splitlines()]
        assert len(rows) == way["steps"]
        assert way["train_s"] == pytest.approx(sum(row["seconds"] for row in rows))
        assert way["train_pairs_per_s"] == pytest.approx(len(rows) * 6 * 6 / way["train_s"])
        assert way["judged_pairs_per_s"] > 0 and 0 <= way["scores"]["mAP"] <= 1
    pace = [json.loads(line)["seconds"] for line in (out / "pace/figures.jsonl").read_text().splitlines()]
    assert joint["steps"] == max(1, round(separated["train_s"] / (sum(pace[2:]) / len(pace[2:]))))


def test_the_training_must_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "attention", str(tmp_path)]) == 2
    assert "--training FILE" in capsys.readouterr().err
