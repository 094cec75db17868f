"""Plans: how measured work is laid out on machines, the table of shapes, and what `--dry-run` prints of it."""

import json
from pathlib import Path

import pytest

from modeling.errors import ConfigError
from ray_jobs.cli import main
from workflows.plan import work as work_module
from workflows.plan.layout import lay_out
from workflows.plan.shapes import ClusterConfig, NodeGroup, Shape, find_shape, read_shapes
from workflows.plan.work import (
    RAY_STARTS,
    SHARD_STARTS,
    STEP_STARTS,
    WORKER_STARTS,
    StageWork,
    StepWork,
    seconds_on,
    start_s,
    workers_on,
)
from workflows.progress import Plan

START_S = 2.0
RAY_S, STEP_S, WORKER_S = RAY_STARTS * START_S, STEP_STARTS * START_S, WORKER_STARTS * START_S
WAY_S = SHARD_STARTS * START_S


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which importing Ray Data takes two seconds."""
    monkeypatch.setattr(work_module, "start_s", lambda: START_S)


def test_a_start_is_measured() -> None:
    assert 0.2 < start_s() < 120 and start_s() == start_s()


def shape(cpus: float, gpus: float = 0.0, core_speed: float = 1.0) -> Shape:
    return Shape(nodes=[NodeGroup(cpus=cpus, gpus=gpus, price_per_hour=1.0)], core_speed=core_speed)


@pytest.mark.usefixtures("starts")
def test_work_that_fills_the_cores_takes_its_seconds_over_the_cores() -> None:
    step = StepWork("ingest", 1000, (StageWork("Decode", 3000.0), StageWork("Detect", 5000.0)))
    for cores in (2, 8):
        assert seconds_on([step], shape(cores)) == pytest.approx(RAY_S + STEP_S + (8000 + 2000 * WAY_S) / cores)
    assert seconds_on([step], shape(8, core_speed=2.0)) == pytest.approx(RAY_S + STEP_S + 8000 / 16 + 2000 * WAY_S / 8)


@pytest.mark.usefixtures("starts")
def test_workers_load_side_by_side_and_no_faster_than_one_of_them() -> None:
    judge = StepWork("judged", 1000, (StageWork("Judge", 1000.0, workers=(2, 256), load_s=5.0),))
    assert seconds_on([judge], shape(2)) == pytest.approx(RAY_S + STEP_S + (WORKER_S + 5) + 500 + 1000 * WAY_S / 2)
    one = StepWork("judged", 1000, (StageWork("Judge", 1000.0, workers=(1, 1), load_s=5.0),))
    assert seconds_on([one], shape(8)) == pytest.approx(RAY_S + STEP_S + (WORKER_S + 5) + 1000)


@pytest.mark.usefixtures("starts")
def test_a_stage_with_few_workers_or_few_shards_sets_the_pace() -> None:
    judge = StageWork("Judge", 100.0, workers=(1, 1))
    assert seconds_on([StepWork("judged", 50, (judge,))], shape(64)) == pytest.approx(RAY_S + STEP_S + WORKER_S + 100)
    many = StageWork("Judge", 100.0, workers=(2, 256))
    three = StepWork("judged", 3, (many,))  # on two workers one of them has two shards of three
    assert seconds_on([three], shape(2)) == pytest.approx(RAY_S + STEP_S + WORKER_S + 100 * 2 / 3)
    assert (workers_on(many, 3, shape(64)), workers_on(many, 500, shape(64))) == (3, 64)


@pytest.mark.usefixtures("starts")
def test_gpus_bound_the_stages_that_ask_for_them_and_a_shape_without_any_cannot_tell() -> None:
    step = StepWork("judged", 1000, (StageWork("Judge", 1000.0, cpus=1.0, gpus=0.5, workers=(1, 256)),))
    assert workers_on(step.stages[0], 1000, shape(64, gpus=4)) == 8
    assert seconds_on([step], shape(64, gpus=4)) == pytest.approx(RAY_S + STEP_S + WORKER_S + 125)
    assert seconds_on([step], shape(64)) is None


@pytest.mark.usefixtures("starts")
def test_finished_steps_cost_nothing_and_a_command_without_ray_does_not_pay_for_it() -> None:
    assert seconds_on([StepWork("ingest", 0, ())], shape(2)) == 0.0
    own = StepWork("report", 1, (StageWork("Render", 10.0, workers=(1, 1)),), on_ray=False)
    assert seconds_on([own], shape(2)) == pytest.approx(10.0)


def test_the_shipped_shapes_are_whole_and_ones_own_are_checked(tmp_path: Path) -> None:
    table = read_shapes(None)
    assert all(each.price_per_hour > 0 and each.cpus >= 8 for each in table.shapes.values())
    with pytest.raises(ConfigError, match=r"no cluster shape 'cpu-1'\. There are cpu-16"):
        find_shape(table, "cpu-1")
    file = tmp_path / "mine.yaml"
    file.write_text("currency: EUR\nshapes:\n  rack: {nodes: [{count: 3, cpus: 32, gpus: 2, price_per_hour: 1.5}]}\n")
    rack = find_shape(read_shapes(str(file)), "rack")
    assert (rack.cpus, rack.gpus, rack.price_per_hour) == (96, 6, 4.5)
    file.write_text("shapes:\n  rack: {nodes: [{cpus: 32, price_per_hour: 1, prize: 2}]}\n")
    with pytest.raises(ConfigError, match=r"shapes\.rack\.nodes\.0\.prize.*shapes\.yaml"):
        read_shapes(str(file))


def test_a_price_without_a_shape_and_a_shape_with_its_price() -> None:
    assert ClusterConfig().price() is None
    own = ClusterConfig(price_per_hour=2.0, currency="EUR").price()
    assert own is not None and (own.per_hour, own.currency) == (2.0, "EUR")
    shipped = ClusterConfig(shape="cpu-16").price()
    assert shipped is not None and shipped.per_hour == pytest.approx(0.8)


@pytest.mark.usefixtures("starts")
def test_a_report_states_hours_and_cost_on_the_shape() -> None:
    work = [StepWork("ingest", 10_000, (StageWork("Decode", 160 * 3600.0),))]
    report = lay_out(Plan({"frames": 5}, 36000.0, work=work), ClusterConfig(shape="cpu-16"))
    assert report.cluster_s == pytest.approx(10 * 3600, rel=0.01)
    assert report.plain()["cluster"]["cost"] == pytest.approx(8.0, rel=0.01)
    assert "on cpu-16: about 10.0" in report.lines()[1] and "ingest.Decode 16" in report.lines()[1]
    here = lay_out(Plan({}, 3600.0), ClusterConfig(price_per_hour=2.0))
    assert here.lines()[-1] == "expected time: about 60 min, 2.00 USD. Nothing was run (--dry-run)."


def test_the_command_line_takes_shapes_and_prices_for_every_step(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    synth = ["synth", str(tmp_path / "a"), "--frames", "64", "--width", "160", "--height", "120", "--dry-run"]
    assert main([*synth, "--cluster-shape", "gpu-l4-4", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["cluster"]["cpus"] == 72 and plan["cluster"]["cost"] > 0 and plan["expected_s"] > 0
    assert main([*synth, "--set", "cluster.price_per_hour=36"]) == 0
    assert "USD" in capsys.readouterr().out.splitlines()[-1]
    assert main([*synth, "--cluster-shape", "cpu-17"]) == 2
    assert "no cluster shape 'cpu-17'" in capsys.readouterr().err
    settings = tmp_path / "settings.yaml"
    settings.write_text("frames: 32\ncluster: {shape: cpu-64}\n")
    assert main([*synth[:2], *synth[4:], "--config", str(settings)]) == 0
    printed = capsys.readouterr().out
    assert "frames: 32" in printed and "on cpu-64: about" in printed
    assert main([*synth, "--set", "cluster.shpae=cpu-64"]) == 2
    assert "did you mean shape" in capsys.readouterr().err
