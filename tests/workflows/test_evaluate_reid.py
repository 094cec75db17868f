"""`psreid evaluate reid`: the gallery in parts gives the scores of the whole, and a run does what it says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modeling.errors import ConfigError
from modeling.instruct_reid.encoder import load_irm_encoder
from modeling.instruct_reid.instructions import TASKS
from modeling.instruct_reid.protocol import TASK_RULES
from modeling.metrics.reid import Places, ReidLabels, places_in_gallery
from modeling.topk import cosine_scores
from modeling.types import QueryInput
from ray_jobs.cli import main
from tests.workflows.reid_archive import reid_archive, saved_model
from workflows.evaluate_reid.config import EvaluateReidConfig
from workflows.evaluate_reid.encode import OWN_INSTRUCTION
from workflows.evaluate_reid.places import (
    Question,
    Side,
    count_before,
    find_matches,
    join_found,
    places_of,
    similarity_of,
)
from workflows.evaluate_reid.questions import score_setting, table_lines
from workflows.evaluate_reid.sides import join_sides
from workflows.evaluate_reid.step import plan_evaluate_reid, run_evaluate_reid
from workflows.progress import Progress

torch.set_num_threads(1)


def _side(count: int, seed: int, *, names: str = "abcd") -> Side:
    """Random labels and features of few different values, so that scores tie."""
    rng = np.random.default_rng(seed)
    features = rng.integers(-1, 2, (count, 4)).astype(np.float64) + 1e-3
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    words = rng.normal(size=(count, 3))
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    labels = ReidLabels(
        rng.choice(list(names), count), rng.choice(["c1", "c2", "c3"], count), rng.choice(["x", "y", ""], count),
        rng.choice(["rgb", "ir"], count),
    )  # fmt: skip
    texts = {name: words.astype(np.float32) for name in ("instruction_feature", *OWN_INSTRUCTION.values())}
    return Side(labels, {"embedding": features.astype(np.float16)}, texts)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("is_joint", [False, True])
def test_parts_give_the_places_of_the_whole(task: Any, is_joint: bool) -> None:
    queries = _side(9, 1, names="abcdz")  # nobody is z
    pieces = [_side(size, seed) for seed, size in enumerate((17, 1, 30, 5), start=10)]
    rows = np.array([0, 2, 3, 5, 8])
    question = Question(task, rows, "embedding", OWN_INSTRUCTION.get(task), is_joint)
    found = join_found([find_matches(question, queries, piece, piece=n) for n, piece in enumerate(pieces)])
    counts = sum(count_before(question, queries, piece, found, piece=n) for n, piece in enumerate(pieces))
    got = list(places_of(question, found, np.asarray(counts)))

    whole = join_sides(pieces)
    labels = queries.labels
    own = ReidLabels(labels.identities[rows], labels.cameras[rows], labels.clothes[rows], labels.modalities[rows])
    scores = cosine_scores(
        torch.from_numpy(queries.features["embedding"][rows]), torch.from_numpy(whole.features["embedding"])
    )
    expected = places_in_gallery(
        -scores.numpy(), own, whole.labels, [TASK_RULES[task]] * len(rows), is_joint=is_joint,
        instruction_similarity_QG=similarity_of(question, queries, whole),
    )  # fmt: skip
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.places, other.places)
        np.testing.assert_array_equal(one.similarities, other.similarities)
    assert any(len(one.places) for one in got)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> str:
    return reid_archive(str(tmp_path_factory.mktemp("reid-eval") / "archive")).path("tables/frames")


def _config(frames: str, folder: Path, kind: Any = "irm++", **changes: Any) -> EvaluateReidConfig:
    settings = {"model": saved_model(folder / "model", kind), "frames": frames, "out": str(folder / "out"), "actors": 1}
    return EvaluateReidConfig(**(settings | changes))


def test_a_run_over_all_settings(ray_cluster: None, frames: str, tmp_path: Path) -> None:
    config = _config(frames, tmp_path, "irm", settings=("task-free", "task-specific", "joint"))
    summary = run_evaluate_reid(config, Progress())
    record = json.loads((tmp_path / "out" / "scores.json").read_text())
    rows = {(row["setting"], row["task"]): row for row in record["scores"]}
    assert set(rows) == {(s, t) for s in config.settings for t in TASKS} | {("joint", "all")}
    for row in rows.values():
        assert 0 < row["mAP"] <= 1 and row["queries"] > 0 and row["mAP25"] >= row["mAP50"] >= row["mAP75"]
    assert rows["joint", "all"]["queries"] == sum(rows["joint", task]["queries"] for task in TASKS) == record["queries"]
    assert rows["task-free", "CC"]["mAP"] != rows["task-specific", "CC"]["mAP"]
    assert rows["task-free", "Trad"]["mAP75"] == rows["task-free", "Trad"]["mAP"]  # one sentence for all
    assert any(line.startswith("joint") and "65.3" in line for line in summary.details)

    again = run_evaluate_reid(config, Progress())
    assert json.loads(json.dumps(again.record))["scores"] == record["scores"]
    top = run_evaluate_reid(config.model_copy(update={"ap_top": 1}), Progress())
    assert top.record is not None and top.record["ap"] == "first 1 candidates"
    assert all(row["mAP"] == row["top1"] for row in top.record["scores"])
    with pytest.raises(ConfigError, match="seed: there 0, now 1"):
        run_evaluate_reid(config.model_copy(update={"seed": 1}), Progress())
    reranked = run_evaluate_reid(config.model_copy(update={"rerank": True}), Progress())
    assert reranked.record is not None and reranked.record["reranked"]
    assert [row["queries"] for row in reranked.record["scores"]] == [row["queries"] for row in record["scores"]]


def test_a_plan(frames: str, tmp_path: Path) -> None:
    assert plan_evaluate_reid(_config(frames, tmp_path)).lines["frames"] == 96


def test_the_table_has_the_papers_figures_beside_ours() -> None:
    config = EvaluateReidConfig(model="m", frames="f", out="o")
    rows = score_setting("joint", {"LI": [Places(np.array([1, 4]), np.array([0.9, 0.1]))]}, config)
    assert [row.task for row in rows] == ["LI", "all"]
    head, first, last = table_lines(rows)
    assert head.split()[:4] == ["setting", "task", "queries", "mAP"]
    assert "75.0" in first and "100.0" in first and last.endswith("65.3")


def test_the_encoder_is_a_person_encoder(tmp_path: Path) -> None:
    encoder = load_irm_encoder(saved_model(tmp_path))
    crops = [np.random.default_rng(n).integers(0, 256, (40, 20, 3), dtype=np.uint8) for n in range(3)]
    persons = encoder.embed_persons(crops)
    assert persons.shape == (3, encoder.dim) and encoder.embed_persons([]).shape == (0, encoder.dim)
    queries = [QueryInput("a", crops[0], None), QueryInput("b", None, "a man"), QueryInput("c", crops[0], "a man")]
    vectors = encoder.embed_queries(queries)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors[1], encoder.embed_queries(queries[1:2])[0])


def test_the_command_line(frames: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved_model(tmp_path / "model")
    arguments = ["evaluate", "reid", model, frames, str(tmp_path / "out"), "--tasks", "cc", "LI"]
    assert main([*arguments, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["frames"] == 96
    assert main([*arguments, "--tasks", "reid"]) == 2
    assert "the tasks are Trad, CC, CTCC, VI, T2I, LI" in capsys.readouterr().err
