"""An evaluation through Ray Data gives what plain calls give; and the command line prints it."""

import json
from pathlib import Path

import pytest

from ray_jobs.cli import main
from tests.workflows import small_archive as small
from tests.workflows import small_benchmark as bench
from workflows.evaluate import steps
from workflows.evaluate.config import EvaluateConfig
from workflows.evaluate.step import run_evaluate
from workflows.ledger import Ledger
from workflows.progress import Progress
from workflows.storage import Folder

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_the_command_on_ray_prints_what_plain_calls_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = bench.write_model(tmp_path / "model"), bench.write_benchmark(tmp_path / "data")
    arguments = ["evaluate", data, "--model", model, "--out", str(tmp_path / "ray"), "--gallery", "Large", "Small"]
    assert main([*arguments, "--set", "judge_actors=1", "--set", "resamples=20", "--json", "--quiet"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(printed) == ["Large", "Small"]
    assert {"giou", "ciou", "top1", "mAP"} < set(printed["Large"])
    monkeypatch.setattr(steps, "run_step", small.run_step_in_process)
    plain = EvaluateConfig(
        data=data, out=str(tmp_path / "plain"), models=(model,), gallery=("Large", "Small"), resamples=20
    )
    assert run_evaluate(plain, Progress()).record == printed

    def measured(out: str) -> list[dict]:
        rows = Ledger.read(Folder(str(tmp_path / out / "measured"))).read_table().to_pylist()
        return sorted(rows, key=lambda row: (row["query_id"], row["frame_id"]))

    assert measured("ray") == measured("plain")


def test_bad_settings_end_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--json"]) == 2
    assert "DATA is missing" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "is no benchmark" in capsys.readouterr().err
