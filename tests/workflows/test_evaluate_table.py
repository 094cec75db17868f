"""The paper's tables: definitions, running with a real small model, storing and printing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling.errors import ConfigError, DataError
from modeling.ps_reid.judge import Judge
from tests.workflows import small_archive as small
from tests.workflows import small_benchmark as bench
from workflows.config import StepConfig
from workflows.evaluate import steps, table
from workflows.evaluate.config import EvaluateConfig
from workflows.evaluate.step import plan_evaluate, run_evaluate
from workflows.evaluate.table import BEST_GIOU
from workflows.evaluate.tables import METRICS, TABLES
from workflows.index.inputs import open_step
from workflows.progress import Progress, Summary


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "run_step", small.run_step_in_process)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Two models, as two seeds would give."""
    made = tmp_path_factory.mktemp("models")
    return tuple(bench.write_model(made / f"seed-{seed}", seed=seed) for seed in (0, 1))


def config(tmp_path: Path, number: int, **changes: Any) -> EvaluateConfig:
    data = bench.write_benchmark(tmp_path / "data")
    settings = {
        "data": data, "table": number, "run": True, "results": str(tmp_path / "results"), "gallery": ("Large",),
        "resamples": 10, "worst": 0,
    }  # fmt: skip
    return EvaluateConfig.model_validate(settings | changes)


def test_every_table_has_the_papers_figures_for_its_own_rows() -> None:
    assert [figures.number for figures in TABLES.values()] == [2, 3, 4, 5]
    for number in (3, 4, 5):
        best = TABLES[number].variants[-1].paper["TestG100"]
        assert best == (54.7, 50.8, 80.0, 65.5) == TABLES[2].others["PS-ReID-13B"]["TestG100"]
    for number in (3, 5):
        names = [variant.name for variant in TABLES[number].variants]
        assert len(set(names)) == len(names) and TABLES[number].is_trained


def test_table_4_runs_all_modalities_in_one_pass_and_prints_ours_beside_the_papers(
    tmp_path: Path, models: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    plain = Judge.judge

    def counting(self: Judge, queries: Any, targets: Any, pairs: Any) -> Any:
        shown.extend(target.frame_id for target in targets)
        return plain(self, queries, targets, pairs)

    monkeypatch.setattr(Judge, "judge", counting)
    summary = run_evaluate(config(tmp_path, 4, models=models), Progress())
    assert len(shown) == 2 * len(set(shown)), "each model sees a frame once for all three modalities"
    stored = json.loads((tmp_path / "results/table-4.json").read_text())
    assert summary.record == stored and stored["table"] == 4
    assert "DATA --table 4 --run --model seed-0 seed-1" in stored["command"]
    assert [variant["name"] for variant in stored["variants"]] == ["text only", "image only", "text and image"]
    for variant in stored["variants"]:
        assert [run["seed"] for run in variant["runs"]] == [0, 1]
        assert all(set(run["scores"]["Large"]) == {*METRICS, BEST_GIOU} for run in variant["runs"])
    alone = EvaluateConfig(data=str(tmp_path / "data"), models=models[:1], gallery=("Large",), modality=("text",))
    expected = run_evaluate(alone, Progress()).record
    assert expected is not None
    text = stored["variants"][0]["runs"][0]["scores"]["Large"]
    assert {name: text[name] for name in METRICS} == {name: expected["Large"][name] for name in METRICS}
    assert text[BEST_GIOU] == pytest.approx(expected["Large"]["best_threshold"]["giou"], abs=1e-4)
    assert text[BEST_GIOU] >= text["giou"]
    assert any(line.startswith("text only") and "±" in line for line in summary.details)


def test_table_2_compares_both_attentions_with_recall_and_the_floor(tmp_path: Path, models: tuple[str, ...]) -> None:
    stored = run_evaluate(config(tmp_path, 2, models=models[:1]), Progress()).record
    assert stored is not None
    scores = {variant["name"]: variant["runs"][0]["scores"]["Large"] for variant in stored["variants"]}
    separated, joint, recall, floor = scores.values()
    assert separated != joint and None not in (*separated.values(), *joint.values())
    for ranked in (recall, floor):
        assert ranked["giou"] is None and ranked[BEST_GIOU] is None and ranked["mAP"] is not None
    assert floor["mAP"] > 0.8


def test_a_stored_table_is_printed_without_data_and_a_missing_one_says_how_to_make_it(
    tmp_path: Path, models: tuple[str, ...]
) -> None:
    run_evaluate(config(tmp_path, 4, models=models[:1]), Progress())
    printed = run_evaluate(EvaluateConfig(table=4, results=str(tmp_path / "results")), Progress())
    assert any(line.startswith("text and image") for line in printed.details)
    with pytest.raises(DataError, match="psreid evaluate DATA --table 3 --run"):
        run_evaluate(EvaluateConfig(table=3, results=str(tmp_path / "results")), Progress())


def test_lines_show_percent_means_spread_and_the_papers_figures() -> None:
    scores = [
        {"giou": 0.5, "ciou": None, "top1": 0.8, "mAP": 0.6, "best giou": 0.6},
        {"giou": 0.6, "ciou": None, "top1": 0.8, "mAP": 0.7, "best giou": 0.6},
    ]
    runs = [{"seed": seed, "scores": {"TestG100": values}} for seed, values in enumerate(scores)]
    stored = {"galleries": ["TestG100"], "variants": [{"name": "image only", "runs": runs}]}
    lines = list(table.table_lines(TABLES[4], stored))
    line = next(line for line in lines if line.startswith("image only"))
    assert line.split("|")[0].split() == [
        "image", "only", "55.0", "±7.1", "-", "80.0", "±0.0", "65.0", "±7.1",
        "60.0", "±0.0",
    ]  # fmt: skip
    assert line.split("|")[1].split() == ["42.6", "39.1", "66.0", "53.4"]
    assert next(line for line in lines if line.startswith("text only")).split("|")[0].split() == [
        "text", "only", "-", "-", "-", "-", "-",
    ]  # fmt: skip


def test_trained_tables_ask_for_the_shared_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give the settings they share with --training FILE"):
        run_evaluate(config(tmp_path, 5), Progress())


class _Stage(StepConfig):
    steps: int = 5
    trains: tuple[str, ...] = ("lora",)


class _Losses(StepConfig):
    reid: float = 1.0
    smooth_l1: float = 1.0
    ciou: float = 1.0


class _TrainConfig(StepConfig):
    """The settings of a training that the tables touch."""

    out: str
    frames: tuple[str, ...] = ()
    start_from: str | None = None
    tracking_uri: str | None = None
    seed: int = 0
    preset: str = "tiny"
    identities_per_step: int = 6
    targets_per_identity: int = 2
    stage1: _Stage = _Stage()
    stage2: _Stage = _Stage()
    losses: _Losses = _Losses()


def test_trained_tables_train_each_variant_and_seed_once_and_share_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[_TrainConfig] = []

    def train(settings: _TrainConfig, _: Progress) -> Summary:
        if not Path(settings.out).exists():
            trained.append(settings)
            bench.write_model(Path(settings.out) / "model", seed=settings.seed)
        return Summary("", settings.out)

    monkeypatch.setattr(table, "load_training", lambda: table.Training(_TrainConfig, train))
    frames = f"{bench.write_benchmark(tmp_path / 'data')}/tables/frames"
    start = str(tmp_path / "starts/foundation")
    (tmp_path / "shared.yaml").write_text(f"{{stage2: {{steps: 7}}, frames: [{frames}], start_from: {start}}}\n")
    shared = {"training": str(tmp_path / "shared.yaml"), "seeds": (0, 1), "gallery": ("Small",)}
    summary = run_evaluate(config(tmp_path, 5, **shared), Progress())
    stored = summary.record
    assert stored is not None
    weights = [(one.losses.reid, one.losses.smooth_l1, one.losses.ciou) for one in trained]
    assert weights[::2] == weights[1::2] == [(0, 1, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1)]
    assert [one.seed for one in trained] == [0, 1] * 4
    assert {one.stage2.steps for one in trained} == {7}
    assert [[run["seed"] for run in variant["runs"]] for variant in stored["variants"]] == [[0, 1]] * 4
    assert stored["settings"]["training"]["stage2"]["steps"] == 7
    assert stored["settings"]["training"]["start_from"] == "foundation"
    assert stored["settings"]["training_frames"] == [open_step(frames, command="synth").digest]
    assert str(tmp_path) not in json.dumps(stored), "no place of this machine"
    assert stored["command"].endswith("--training TRAINING.yaml --set 'seeds=[0, 1]'")
    budget = "5 + 7 steps of 6 identities x 3 frames, from foundation; seeds 0, 1; trained on"
    assert budget in summary.details[-1] and stored["settings"]["benchmark"] in summary.details[-1]
    run_evaluate(config(tmp_path, 3, **shared), Progress())
    assert len(trained) == 8 + 4, "the whole training of table 3 is that of table 5"
    assert trained[-1].stage2.trains[:3] == ("query_adapter", "target_adapter", "place")


def test_the_plan_of_a_table_counts_its_runs(tmp_path: Path) -> None:
    plan = plan_evaluate(config(tmp_path, 3, seeds=(0, 1, 2)))
    assert (plan.lines["trainings"], plan.lines["evaluations"]) == (9, 9)


def test_the_plan_of_an_evaluation_counts_pairs_and_measures_time(tmp_path: Path, models: tuple[str, ...]) -> None:
    data = bench.write_benchmark(tmp_path / "data")
    plan = plan_evaluate(EvaluateConfig(data=data, models=models[:1]))
    judged = {(query_id, n) for g in bench.galleries().values() for query_id, ns in g.items() for n in ns}
    assert plan.lines["pairs"] == len(judged - {("q-red", 0)})
    assert plan.expected_s is not None and plan.expected_s > 0
