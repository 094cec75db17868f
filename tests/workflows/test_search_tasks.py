"""Searches that ask by instruction: a real (small, untrained) IRM++ as the index's model, judged by its own cosine."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modeling.errors import ConfigError, DataError
from modeling.instruct_reid.checkpoint import save_irm
from modeling.instruct_reid.encoder import IrmEncoder, load_irm_encoder
from modeling.instruct_reid.instructions import Instruction, fixed_sentence
from modeling.ps_reid.build import with_metric
from modeling.ps_reid.checkpoint import save_model
from modeling.regions import crop, rle_to_mask
from tests.modeling.instruct_reid.small_irm import small_irm
from tests.modeling.ps_reid.small_model import small_model
from tests.workflows import small_archive as small
from workflows.index import step as index_step
from workflows.index.config import IndexConfig
from workflows.index.frames import decode_image
from workflows.ledger import Ledger
from workflows.progress import Progress, Summary
from workflows.report.config import ReportConfig
from workflows.report.step import run_report
from workflows.search import step as search_step
from workflows.search import steps
from workflows.search.config import SearchConfig
from workflows.search.estimate import estimate_search
from workflows.storage import Folder

FRAMES = small.random_frames(12, seed=3)
PICTURE = np.asarray(decode_image(small.query_row("q", "red")["image"], what="q"))


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for module in (index_step, steps):
        monkeypatch.setattr(module, "run_step", small.run_step_in_process)
    monkeypatch.setattr(search_step, "run_report", lambda config, _: Summary("", config.out))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("irm")
    save_irm(small_irm(seed=5), folder)
    return str(folder)


@pytest.fixture
def index(tmp_path: Path, model: str) -> str:
    frames = small.write_frames(tmp_path / "frames", FRAMES)
    config = IndexConfig(frames=frames, out=str(tmp_path / "index"), model=model)
    index_step.run_index(config, Progress())
    return config.out


@pytest.fixture
def picture(tmp_path: Path) -> str:
    file = tmp_path / "red.jpg"
    file.write_bytes(small.query_row("q", "red")["image"])
    return str(file)


def search(index: str, out: Path, **settings: Any) -> list[dict[str, Any]]:
    search_step.run_search(SearchConfig(index=index, out=str(out), **settings), Progress())
    return sorted(Ledger.read(Folder(str(out))).read_table().to_pylist(), key=lambda r: (r["query_id"], -r["score"]))


def cosines(encoder: IrmEncoder, instruction: Instruction, image: np.ndarray | None) -> dict[str, tuple[float, list]]:
    """frame_id -> the best person's cosine and box, each computed alone."""
    asked = encoder.queries([image], [instruction])[0]
    best = {}
    for frame in FRAMES:
        pixels = decode_image(frame["image"], what="frame")
        found = [
            (float(asked @ encoder.embed_persons([crop(pixels, np.array(p["box_xyxy_px"]))])[0]), p["box_xyxy_px"])
            for p in frame["persons"]
        ]
        if found:
            best[frame["frame_id"]] = max(found)
    return best


@pytest.mark.parametrize("task", ["cc", "trad", "vi"])
def test_a_task_is_asked_with_its_sentence(tmp_path: Path, index: str, model: str, picture: str, task: str) -> None:
    found = search(index, tmp_path / "out", image=picture, task=task, judge_by="recall", threshold=0.0)
    names = {"cc": "CC", "trad": "Trad", "vi": "VI"}
    expected = cosines(load_irm_encoder(model), fixed_sentence(names[task]), PICTURE)  # type: ignore[arg-type]
    assert {row["frame_id"] for row in found} == expected.keys()
    for row in found:
        score, box = expected[row["frame_id"]]
        assert row["score"] == pytest.approx(score, abs=1e-3) and row["box_xyxy_px"] == box
        assert (row["decision"] == "match") == (row["score"] > 0)
        assert (row["mask_rle"] is not None) == (row["decision"] == "match")
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)
    mask = rle_to_mask(found[0]["mask_rle"])
    assert mask.shape == (small.HEIGHT, small.WIDTH)


def test_clothes_and_words_are_instructions(tmp_path: Path, index: str, model: str, picture: str) -> None:
    encoder = load_irm_encoder(model)
    for settings, instruction in (
        ({"task": "ctcc", "clothes": picture}, Instruction(image=PICTURE)),
        ({"task": "li", "text": "a blue coat"}, Instruction(text="a blue coat")),
        ({"task": "cc", "instruction": "Ignore the clothes."}, Instruction(text="Ignore the clothes.")),
    ):
        found = search(index, tmp_path / settings["task"], image=picture, threshold=-2.0, **settings)
        expected = cosines(encoder, instruction, PICTURE)
        assert {row["frame_id"]: row["score"] for row in found} == {
            frame_id: pytest.approx(score, abs=1e-3) for frame_id, (score, _) in expected.items()
        }


def test_a_table_names_the_task_of_each_query(tmp_path: Path, index: str, model: str) -> None:
    rows = [
        small.query_row("a", "red") | {"task": "CC"},
        small.query_row("b", text="a red coat") | {"task": "T2I"},
        small.query_row("c", "red") | {"task": "LI"},
        small.query_row("d", "red") | {"task": "walk"},
        small.query_row("e", "red") | {"task": "CTCC", "instruction_image": small.query_row("q", "blue")["image"]},
    ]
    table = small.write_queries(tmp_path / "queries", rows)
    found = search(index, tmp_path / "out", queries=table, stop_after="recall")
    assert {row["query_id"] for row in found} == {"a", "b", "e"}
    aside = Ledger.read(Folder(str(tmp_path / "out/queries"))).read_quarantine().to_pylist()
    assert {(row["row_id"], row["reason"]) for row in aside} == {
        ("c", "not_what_its_task_needs"),
        ("d", "unknown_task"),
    }
    assert any("asks as LI and lacks a text" in row["detail"] for row in aside)
    encoder = load_irm_encoder(model)
    best = max(row["score"] for row in found if row["query_id"] == "b")
    told = cosines(encoder, Instruction(text="a red coat"), None)
    assert best == pytest.approx(max(score for score, _ in told.values()), abs=2e-3)


def test_what_cannot_be_asked_is_refused(tmp_path: Path, index: str, model: str, picture: str) -> None:
    def refused(error: type[Exception], match: str, **settings: Any) -> None:
        with pytest.raises(error, match=match):
            search(index, tmp_path / "out", **settings)

    refused(DataError, "asks as CC and lacks a picture", text="a man", task="cc")
    refused(DataError, "asks as CTCC and lacks a picture of the clothes", image=picture, task="ctcc")
    refused(DataError, "asks as LI and lacks a text", image=picture, task="li")
    refused(ValueError, "there is no task 'walk'; the tasks are Trad", image=picture, task="walk")
    refused(ValueError, "PS-ReID, which knows no tasks", image=picture, task="cc", recall="none")
    refused(ConfigError, "judges no pairs and draws no masks", image=picture, model=model)
    refused(ValueError, "not both", queries="q", task="cc")


def test_an_index_without_tasks_says_so(tmp_path: Path, picture: str) -> None:
    frames = small.write_frames(tmp_path / "frames", FRAMES[:2])
    save_model(small_model(), tmp_path / "own_metric")
    config = IndexConfig(frames=frames, out=str(tmp_path / "index"), model=str(tmp_path / "own_metric"))
    index_step.run_index(config, Progress())
    with pytest.raises(ConfigError, match=r"own_metric', which knows no tasks.*psreid index"):
        search(config.out, tmp_path / "out", image=picture, task="cc")


def test_an_index_by_a_psreid_with_an_instruct_reid_metric_knows_tasks(
    tmp_path: Path, model: str, picture: str
) -> None:
    frames = small.write_frames(tmp_path / "frames", FRAMES)
    save_model(with_metric(small_model(), model), tmp_path / "judge")
    config = IndexConfig(frames=frames, out=str(tmp_path / "index"), model=str(tmp_path / "judge"))
    index_step.run_index(config, Progress())
    found = search(config.out, tmp_path / "out", image=picture, task="cc", model=str(tmp_path / "judge"))
    assert {row["frame_id"] for row in found} == {frame["frame_id"] for frame in FRAMES if frame["persons"]}


def test_a_plan_of_a_task(tmp_path: Path, index: str, picture: str) -> None:
    config = SearchConfig(index=index, out=str(tmp_path / "out"), image=picture, task="cc")
    assert config.judged_by == "recall" and config.least_score == 0.5
    plan = estimate_search(search_step.open_search(config, Progress()))
    assert plan.lines["queries"] == 1 and plan.lines["pairs"] == plan.lines["frames"]


def test_the_report_says_what_was_asked_and_what_the_scores_are(tmp_path: Path, index: str, picture: str) -> None:
    out = tmp_path / "out"
    search(index, out, image=picture, task="cc", threshold=-2.0)
    report = run_report(ReportConfig(matches=str(out), out=str(tmp_path / "report")), Progress())
    page = Path(report.output).read_text() if report.output.endswith(".html") else ""
    page = page or (tmp_path / "report/report.html").read_text()
    assert "in other clothes" in page and "PS-ReID did not judge these frames" in page
