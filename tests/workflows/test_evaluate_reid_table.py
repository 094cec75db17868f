"""The tables of Instruct-ReID++: variants and their budget, shared trainings, a real small run, storing, printing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling.errors import ConfigError, DataError
from modeling.instruct_reid.config import PRESETS, IrmConfig
from modeling.instruct_reid.instructions import SENTENCES, TASKS, Instruction
from modeling.instruct_reid.objective import IrmBatch, IrmLossSettings, IrmObjective
from ray_jobs.cli import main
from tests.modeling.instruct_reid.small_irm import IMAGE, WORDS, small_irm, some_pixels
from tests.workflows import small_archive as small
from tests.workflows.reid_archive import reid_archive
from tests.workflows.synthetic_archive import make_archive
from workflows.config import check_settings
from workflows.evaluate_reid import step, table, trainings
from workflows.evaluate_reid.config import EvaluateReidConfig, ReidTableConfig
from workflows.evaluate_reid.questions import PAPER_MAP
from workflows.evaluate_reid.table import plan_table, run_table
from workflows.evaluate_reid.tables import TABLES, Variant
from workflows.evaluate_reid.trainings import ADAPTIVE_TASKS, SharedTraining, Training
from workflows.progress import Progress, Summary
from workflows.train.irm_config import IrmTrainConfig

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> str:
    return reid_archive(str(tmp_path_factory.mktemp("reid-table") / "archive")).path("tables/frames")


def shared_file(frames: str, folder: Path, **changes: Any) -> str:
    settings = {
        "frames": [frames], "steps": 8, "warmup_steps": 4, "identities_per_step": 4, "learning_rate": 1e-3,
        "workers": 0,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shared.yaml").write_text(json.dumps(settings | changes))
    return str(folder / "shared.yaml")


def config(frames: str, folder: Path, number: int, **changes: Any) -> ReidTableConfig:
    settings = {
        "table": number, "frames": frames, "run": True, "out": str(folder / "out"), "seeds": (0,),
        "results": str(folder / "results"), "training": changes.pop("training", None) or shared_file(frames, folder),
    }  # fmt: skip
    return ReidTableConfig.model_validate(settings | changes)


def shared(frames: str, folder: Path, **changes: Any) -> SharedTraining:
    return SharedTraining.read(shared_file(frames, folder, **changes), str(folder / "out"))


def variant(number: int, name: str) -> Variant:
    return next(one for one in TABLES[number].variants if one.name == name)


# ---- the tables


def test_every_table_has_the_papers_figures_for_its_columns() -> None:
    assert list(TABLES) == [5, 6, 7, 8]
    for one in TABLES.values():
        for figures in (*(row.paper for row in one.variants), *one.others.values()):
            assert len(figures) == len(one.columns)
    for number, name, setting in ((8, "IRM (MTL)", "task-specific"), (6, "IRM++ (MTL)", "task-free")):
        paper = dict(zip(TABLES[number].tasks, variant(number, name).paper, strict=False))
        assert paper == PAPER_MAP[setting]
    for name in ("IRM (STL)", "IRM (MTL)"):
        five, eight = (dict(zip(TABLES[n].columns, variant(n, name).paper, strict=True)) for n in (5, 8))
        assert all(figure == eight[column] for column, figure in five.items() if column in eight)
    assert variant(7, "IRM++ (MTL)").paper[0] == PAPER_MAP["joint"]["all"]


def test_the_models_of_all_tasks_together_have_the_steps_of_the_one_model(frames: str, tmp_path: Path) -> None:
    common = shared(frames, tmp_path, steps=4000, warmup_steps=100)
    (together,) = common.of_variant(variant(8, "IRM (MTL)"), TABLES[8], 0)
    alone = list(common.of_variant(variant(8, "IRM (STL)"), TABLES[8], 0))
    assert (together.config.tasks, together.config.steps, together.config.warmup_steps) == (TASKS, 4000, 100)
    assert [one.config.tasks for one in alone] == [(task,) for task in TASKS]
    assert {(one.config.steps, one.config.warmup_steps) for one in alone} == {(667, 17)}
    shown = common.of_variant(variant(5, "IRM (STL)"), TABLES[5], 0)
    assert [one.config.tasks for one in shown] == [("Trad",), ("CTCC",), ("LI",)]
    fewer = shared(frames, tmp_path, steps=4000, tasks=["li", "CC"])
    (only,) = fewer.of_variant(variant(5, "IRM (STL)"), TABLES[5], 0)
    assert (only.config.tasks, only.config.steps) == (("LI",), 2000)


def test_variants_are_what_their_names_say_whatever_is_shared(frames: str, tmp_path: Path) -> None:
    common = shared(frames, tmp_path, edits=True, losses={"supervision": "triplet", "alpha": 2.0}, what="irmpp", seed=9)

    def made(number: int, name: str) -> tuple[Any, ...]:
        (training,) = common.of_variant(variant(number, name), TABLES[number], 4)
        one = training.config
        assert one.losses.alpha == 2.0 and one.seed == 4
        return one.what, one.edits, one.losses.is_adaptive, one.losses.supervision

    assert made(8, "IRM (MTL)") == ("irm", True, True, "memory")
    assert made(8, "w/o editing (MTL)") == ("irm", False, True, "memory")
    assert made(8, "w/o adaptive triplet (MTL)") == ("irm", True, False, "memory")
    assert made(6, "IRM* (MTL)") == ("irmpp", False, True, "triplet")
    assert made(6, "IRM++ (MTL)") == ("irmpp", False, True, "memory")


def test_tables_share_trainings(frames: str, tmp_path: Path) -> None:
    common = shared(frames, tmp_path)
    names = {number: {one.name for one in common.of_table(TABLES[number], (0, 1, 2))} for number in TABLES}
    assert {number: len(own) for number, own in names.items()} == {5: 12, 6: 42, 7: 6, 8: 51}
    assert names[5] < names[8] and names[7] < names[6] and not names[6] & names[8]


def test_without_the_adaptive_triplet_only_tasks_that_it_concerns_are_trained_anew(frames: str, tmp_path: Path) -> None:
    common = shared(frames, tmp_path)
    plain, whole = (
        {one.config.tasks[0]: one.name for one in common.of_variant(variant(8, name), TABLES[8], 0)}
        for name in ("w/o adaptive triplet (STL)", "IRM (STL)")
    )
    assert {task for task in TASKS if plain[task] != whole[task]} == ADAPTIVE_TASKS
    irm = small_irm("irm", edits=True)
    pool = [Instruction(text=SENTENCES["CC"][number]) for number in range(8)]
    identity, is_query = torch.arange(8) // 4, torch.arange(8) % 4 < 2
    objectives = [IrmObjective(irm, 2, IrmLossSettings(is_adaptive=is_adaptive)) for is_adaptive in (True, False)]
    objectives[1].load_state_dict(objectives[0].state_dict())
    for task in TASKS:
        batch = IrmBatch(task, some_pixels(8), irm.instruction.prepare(pool), is_query, identity)
        adaptive, other = (objective(batch).total.item() for objective in objectives)
        assert (adaptive == other) == (task not in ADAPTIVE_TASKS)


def test_a_folder_is_named_by_what_is_learned_from_what(frames: str, tmp_path: Path) -> None:
    def name(where: str = "here", frames: str = frames, **changes: Any) -> str:
        (training,) = shared(frames, tmp_path / where, **changes).of_variant(variant(7, "IRM++ (MTL)"), TABLES[7], 0)
        return training.name

    moved = tmp_path / "moved"
    moved.symlink_to(Path(frames))
    assert name() == name("there") == name(frames=str(moved)) == name(threads=2, checkpoint_s=1.0)
    other = make_archive(str(tmp_path / "other"), frames=16).path("tables/frames")
    assert len({name(), name(steps=9), name(frames=other), name(losses={"beta": 1.0}), name(workers=2)}) == 5


# ---- running


class Trainer:
    """Stands for `run_irm`: notes what it trains, and may be killed before a training."""

    def __init__(self, killed_before: int | None = None) -> None:
        self.trained: list[IrmTrainConfig] = []
        self.killed_before = killed_before

    def __call__(self, settings: IrmTrainConfig, progress: Progress) -> Summary:
        if len(self.trained) == self.killed_before:
            raise KeyboardInterrupt
        self.trained.append(settings)
        return Summary("", settings.out, {"steps": settings.steps})


def score_of(settings: EvaluateReidConfig, progress: Progress, *, gallery: Any) -> Summary:
    """Stands for `run_evaluate_reid`: a figure that tells models apart."""
    tasks = [(setting, task) for setting in settings.settings for task in settings.tasks]
    tasks += [("joint", "all")] if "joint" in settings.settings else []
    figures = {"queries": 2, "top1": 0.5, "mAP25": 0.3, "mAP50": 0.2, "mAP75": 0.1}
    rows = [{"setting": s, "task": t, "mAP": 0.1 * len(settings.tasks), **figures} for s, t in tasks]
    out = Path(settings.out)
    out.mkdir(parents=True)
    (out / "scores.json").write_text(json.dumps({"gallery": 40, "scores": rows}))
    return Summary("", settings.out)


def test_a_run_that_was_killed_continues_and_a_second_table_finds_what_it_shares(
    frames: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[EvaluateReidConfig] = []

    def score(settings: EvaluateReidConfig, progress: Progress, **more: Any) -> Summary:
        scored.append(settings)
        return score_of(settings, progress, **more)

    monkeypatch.setattr(step, "run_evaluate_reid", score)
    asked = config(frames, tmp_path, 5, seeds=(0, 1))
    monkeypatch.setattr(trainings, "run_irm", Trainer(killed_before=3))
    with pytest.raises(KeyboardInterrupt):
        run_table(asked, Progress())
    plan = plan_table(asked).lines
    assert (plan["trainings"], plan["trainings done"], plan["evaluations done"]) == (8, 3, 0)
    assert (plan["steps"], plan["steps left"]) == (2 * (8 + 3 * 2), 28 - 3 * 2)
    trainer = Trainer()
    monkeypatch.setattr(trainings, "run_irm", trainer)
    stored = run_table(asked, Progress()).record
    assert [one.tasks for one in trainer.trained] == [TASKS, ("Trad",), ("CTCC",), ("LI",), TASKS]
    assert stored is not None and stored["seeds"] == [0, 1] and stored["steps"] == {"together": 8, "alone": 2}
    alone, together = (one["runs"][1]["scores"] for one in stored["variants"])
    assert stored["benchmark"]["queries"] == {"CTCC": 2, "LI": 2, "Trad": 2}
    assert alone["LI"] == {"mAP": 0.1, "top1": 0.5} and together["LI"]["mAP"] == pytest.approx(0.6)
    assert {one.settings for one in scored} == {("task-specific",)} and len(scored) == 8

    run_table(config(frames, tmp_path, 8, seeds=(0, 1)), Progress())
    assert len(trainer.trained) == 5 + 34 - 8 and len(scored) == 34
    before = len(trainer.trained), len(scored)
    run_table(asked, Progress())
    assert (len(trainer.trained), len(scored)) == before, "all is found done"


def test_the_joint_table_scores_the_models_that_the_task_free_one_trained(
    frames: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer()
    monkeypatch.setattr(trainings, "run_irm", trainer)
    monkeypatch.setattr(step, "run_evaluate_reid", score_of)
    run_table(config(frames, tmp_path, 6), Progress())
    assert plan_table(config(frames, tmp_path, 7)).lines["steps left"] == 0
    stored = run_table(config(frames, tmp_path, 7), Progress()).record
    assert stored is not None and len(trainer.trained) == 14
    scores = {one["name"]: one["runs"][0]["scores"] for one in stored["variants"]}
    assert set(scores) == {"IRM* (MTL)", "IRM++ (MTL)"}
    assert set(scores["IRM++ (MTL)"]["all"]) == {"mAP", "mAP25", "mAP50", "mAP75"}


def test_a_small_real_run(frames: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", IrmConfig(image=IMAGE, instruction=WORDS))
    monkeypatch.setattr(step, "run_step", small.run_step_in_process)
    file = shared_file(frames, tmp_path, tasks=["LI", "CC"], steps=4)
    asked = config(frames, tmp_path, 8, training=file, queries_per_identity=1)
    summary = run_table(asked, Progress())
    stored = json.loads((tmp_path / "results" / "table-8.json").read_text())
    assert summary.record == stored and stored["tasks"] == ["LI", "CC"]
    assert stored["command"].endswith("--set queries_per_identity=1 --set seeds=[0]")
    assert stored["training"]["warmup_steps"] == 4 and not {"what", "seed", "edits", "out"} & set(stored["training"])
    assert str(tmp_path) not in json.dumps(stored) and frames not in json.dumps(stored)
    for one in stored["variants"]:
        assert set(one["runs"][0]["scores"]) == {"LI", "CC"}
        assert all(0 < own["mAP"] <= 1 for own in one["runs"][0]["scores"].values())
    by_name = {one["name"]: one["runs"][0]["scores"] for one in stored["variants"]}
    assert by_name["IRM (STL)"]["CC"] == by_name["w/o adaptive triplet (STL)"]["CC"]
    assert by_name["IRM (MTL)"] != by_name["IRM (STL)"]
    folders = list((tmp_path / "out" / "trainings").iterdir())
    assert len(folders) == 8 and len(list((tmp_path / "out" / "crops").iterdir())) == 1
    lines = [line for line in summary.details if line.startswith("Budget")]
    assert "4 steps (MTL), or 2 a task (STL), of 4 identities x 4 pictures" in lines[0]
    assert "trained on 96 frames, tasks LI, CC" in lines[0]

    (folders[0] / "trained.json").unlink()  # as if it had been killed after its last step
    next((tmp_path / "out" / "evaluations").glob("*/scores.json")).unlink()
    assert run_table(asked, Progress()).record == stored
    monkeypatch.setattr(trainings, "run_irm", None)
    monkeypatch.setattr(step, "run_evaluate_reid", None)
    assert run_table(asked, Progress()).record == stored


@pytest.mark.long
def test_the_command_line_trains_and_scores_on_ray(
    ray_cluster: None, frames: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "tiny", IrmConfig(image=IMAGE, instruction=WORDS))
    common = ["--training", shared_file(frames, tmp_path, steps=2), "--out", str(tmp_path / "out"), "--actors", "1"]
    words = ["evaluate", "reid", frames, "--table", "7", "--results", str(tmp_path / "results"), "--quiet"]
    assert main([*words, "--run", *common, "--set", "seeds=[3]"]) == 0
    assert main(["evaluate", "reid", "--table=7", "--results", str(tmp_path / "results")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("IRM++ (MTL)") == 2 and "65.3 64.7 62.1 60.5" in printed


# ---- printing and errors


def stored_table(*runs: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": 1, "command": "psreid ...", "seeds": [0, 1], "tasks": list(TASKS),
        "steps": {"together": 600, "alone": 100},
        "training": {"identities_per_step": 16, "pictures_per_identity": 4, "preset": "tiny"},
        "training_frames": {"digests": ["d"], "rows": 4800},
        "benchmark": {"digest": "0123456789abcdef", "rows": 2400, "gallery": 900, "settings": {},
                      "queries": {"CTCC": 200, "LI": 100}},
        "variants": [
            {"name": "IRM (MTL)", "runs": [{"seed": n, "scores": scores} for n, scores in enumerate(runs)]}
        ],
    }  # fmt: skip


def test_lines_show_percent_means_spread_and_the_papers_figures(tmp_path: Path) -> None:
    runs = [{"CTCC": {"mAP": 0.5}, "LI": {"mAP": 0.3}}, {"CTCC": {"mAP": 0.6}, "LI": {"mAP": 0.3}}]
    lines = list(table.table_lines(TABLES[8], stored_table(*runs)))
    line = next(line for line in lines if line.startswith("IRM (MTL)"))
    ours, paper = line.split("|")
    assert ours.split()[2:] == ["55.0", "±7.1", "30.0", "±0.0", "-", "-", "-", "-", "42.5", "±3.5"]
    assert paper.split() == ["41.7", "39.8", "66.5", "67.5", "52.0", "93.5", "65.1"]
    assert next(one for one in lines if one.startswith("w/o editing (STL)")).split("|")[0].split()[3:] == ["-"] * 7
    assert lines[0].split() == [
        "percent", "CTCC", "mAP", "LI", "mAP", "T2I", "mAP", "VI", "mAP", "CC", "mAP", "Trad", "mAP", "average", "|",
        "paper",
    ]  # fmt: skip
    budget = " ".join(lines[-2:])
    assert "600 steps (MTL), or 100 a task (STL), of 16 identities x 4 pictures; preset tiny; seeds 0, 1" in budget
    assert (
        "trained on 4800 frames" in budget
        and "queries CTCC 200, LI 100 on 900 pictures" in budget
        and "eleven" in budget
    )


def test_a_stored_table_is_printed_alone_and_a_missing_or_newer_one_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "table-8.json").write_text(json.dumps(stored_table({"CTCC": {"mAP": 0.5}})))
    printed = run_table(ReidTableConfig(table=8, results=str(tmp_path)), Progress())
    assert any(line.startswith("w/o editing (MTL)") for line in printed.details)
    with pytest.raises(DataError, match="psreid evaluate reid FRAMES --table 6 --run --training FILE"):
        run_table(ReidTableConfig(table=6, results=str(tmp_path)), Progress())
    (tmp_path / "table-5.json").write_text(json.dumps(stored_table() | {"version": 2}))
    with pytest.raises(DataError, match="version 2"):
        run_table(ReidTableConfig(table=5, results=str(tmp_path)), Progress())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"table": 4}, "5, 6, 7 and 8; those of PS-ReID"),
        ({"training": None}, "give --training FILE.yaml"),
        ({"frames": None}, "give FRAMES"),
        ({"out": None}, "give --out OUT"),
        ({"out": "s3://bucket/out"}, "trainings need a local folder"),
        ({"seeds": [1, 1]}, "each seed once"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(changes: dict[str, Any], said: str) -> None:
    settings = {"table": 5, "run": True, "frames": "f", "training": "t.yaml", "out": "o"}
    with pytest.raises(ConfigError, match=said):
        check_settings(ReidTableConfig, settings | changes)


def test_the_command_line_plans_and_refuses(frames: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "reid", frames, "--table", "6", "--run", "--out", str(tmp_path / "out"), "--dry-run", "--json"]
    assert main([*words, "--training", shared_file(frames, tmp_path, steps=60)]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["trainings"], plan["trainings done"], plan["steps"]) == (42, 0, 3 * (2 * 60 + 12 * 10))
    assert main(words) == 2
    assert "--training FILE.yaml" in capsys.readouterr().err
    assert main(["evaluate", "reid", "--table", "9"]) == 2
    assert "the tables of Instruct-ReID++ are 5, 6, 7 and 8" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", "reid", "model", frames])
    assert "OUT" in capsys.readouterr().err


def test_a_training_is_locked_while_it_is_in_work(frames: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training: Training = shared(frames, tmp_path).of_table(TABLES[7], (0,))[0]
    refused: list[str] = []

    def second(settings: IrmTrainConfig, progress: Progress) -> Summary:
        with pytest.raises(ConfigError, match="another psreid") as error:
            training.run(progress)
        refused.append(str(error.value))
        return Summary("", settings.out)

    monkeypatch.setattr(trainings, "run_irm", second)
    training.run(Progress())
    assert refused and training.is_done
