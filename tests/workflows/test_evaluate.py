"""Evaluation with a real model of random weights, against scores made by plain loops in memory."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from modeling.errors import ConfigError, DataError, JobError
from modeling.metrics.retrieval import Ranking, score_rankings
from modeling.metrics.segmentation import Rule, measure_pair, score_pairs
from modeling.ps_reid.checkpoint import load_model
from modeling.ps_reid.judge import Judge
from modeling.ps_reid.segmenter import Segmenter
from modeling.types import PairDecision, TargetInput
from tests.workflows import small_archive as small
from tests.workflows import small_benchmark as bench
from workflows.evaluate import calibration, steps
from workflows.evaluate.benchmark import open_benchmark
from workflows.evaluate.config import EvaluateConfig
from workflows.evaluate.step import run_evaluate
from workflows.index.frames import decode_image, person_boxes
from workflows.ledger import Ledger
from workflows.progress import Progress, Summary
from workflows.schema import ALL_QUERIES
from workflows.search.queries import query_input
from workflows.storage import Folder

OWN_FRAME = {"q-red": 0}


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "run_step", small.run_step_in_process)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bench.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def decisions(model: str) -> dict[tuple[str, int], PairDecision]:
    """(query_id, number of the frame) -> the judge's decision, each query on each frame."""
    judge = Judge.load(model)
    queries = {row["query_id"]: judge.encode_query(query_input(row)) for row in bench.queries()}
    targets = [
        TargetInput(row["frame_id"], decode_image(row["image"], what=""), person_boxes(row["persons"]))
        for row in bench.frame_rows()
    ]
    pairs = [(query_id, number) for query_id in queries for number in range(len(targets))]
    return dict(zip(pairs, judge.judge(queries, targets, pairs), strict=True))


@pytest.fixture(scope="module")
def threshold(decisions: dict[tuple[str, int], PairDecision]) -> float:
    """In the middle of the scores, so that all four kinds of decision occur."""
    scores = np.sort([decision.score for decision in decisions.values()])
    return float((scores[len(scores) // 2] + scores[len(scores) // 2 - 1]) / 2)


def evaluate(tmp_path: Path, model: str, **changes: object) -> Summary:
    data = bench.write_benchmark(tmp_path / "data")
    settings = {"data": data, "out": str(tmp_path / "out"), "models": (model,), "resamples": 50, "judge_actors": 1}
    return run_evaluate(EvaluateConfig.model_validate(settings | changes), Progress())


def is_right(query_id: str, number: int) -> bool:
    identity = query_id.removeprefix("q-")
    return any(colour == identity for colour, _ in bench.FRAMES[number])


def expected_scores(
    model: str, decisions: dict[tuple[str, int], PairDecision], threshold: float, gallery: str, rule: Rule
) -> dict[str, float]:
    """The scores of one gallery, from decisions in memory by the metrics' own functions."""
    segmenter, rows = Segmenter.load(model), bench.frame_rows()
    rankings, areas = [], []
    for query_id, numbers in bench.galleries()[gallery].items():
        kept = sorted((n for n in numbers if n != OWN_FRAME.get(query_id)), key=bench.frame_id)
        scores = np.array([round(decisions[query_id, number].score, 4) for number in kept], dtype=np.float32)
        order = np.argsort(-scores, kind="stable")
        rankings.append(Ranking(np.array([is_right(query_id, kept[i]) for i in order], dtype=bool)))
        for number, score in zip(kept, scores, strict=True):
            image = decode_image(rows[number]["image"], what="")
            mask = segmenter.masks(image, [decisions[query_id, number].prompt])[0] if score > threshold else None
            boxes = [p["box_xyxy_px"] for p in rows[number]["persons"] if f"q-{p['identity']}" == query_id]
            areas.append(measure_pair(mask, bench.mask_of(boxes[0]) if boxes else None))
    retrieval, masks = score_rankings(rankings, max_rank=10), score_pairs(areas, rule=rule)
    return {
        "giou": masks.giou, "ciou": masks.ciou, "top1": retrieval.top1, "cmc5": retrieval.cmc[4],
        "cmc10": retrieval.cmc[9], "mAP": retrieval.mean_ap, "mINP": retrieval.mean_inp,
    }  # fmt: skip


@pytest.mark.parametrize("rule", list(Rule))
def test_scores_equal_the_metrics_over_decisions_in_memory(
    tmp_path: Path, model: str, decisions: dict[tuple[str, int], PairDecision], threshold: float, rule: Rule
) -> None:
    record = evaluate(tmp_path, model, threshold=threshold, rule=rule.value).record
    assert record is not None and list(record) == ["Small", "Large"]
    for gallery, scores in record.items():
        expected = expected_scores(model, decisions, threshold, gallery, rule)
        assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=6e-5), gallery
        assert scores["rule"] == rule.value
    large = record["Large"]
    assert 0 < large["false_accepts"] < large["accepted"] < large["pairs"] and large["false_rejects"]


def test_pairs_that_galleries_share_are_judged_once_and_frames_encoded_once(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[tuple[str, str]] = []
    shown: list[str] = []
    plain: Callable[..., list[PairDecision]] = Judge.judge

    def counting(self: Judge, queries: dict, targets: list[TargetInput], pairs: list[tuple[str, int]]) -> list:
        judged.extend((query_id, targets[number].frame_id) for query_id, number in pairs)
        shown.extend(target.frame_id for target in targets)
        return plain(self, queries, targets, pairs)

    monkeypatch.setattr(Judge, "judge", counting)
    evaluate(tmp_path, model)
    wanted = {
        (query_id, bench.frame_id(number))
        for gallery in bench.galleries().values()
        for query_id, numbers in gallery.items()
        for number in numbers
        if number != OWN_FRAME.get(query_id)
    }
    assert sorted(judged) == sorted(wanted)
    assert sorted(shown) == sorted({frame_id for _, frame_id in wanted})


def test_per_query_rows_tell_where_the_person_came_in(
    tmp_path: Path, model: str, decisions: dict[tuple[str, int], PairDecision]
) -> None:
    evaluate(tmp_path, model)
    rows = Folder(str(tmp_path / "out")).read_table("per_query.parquet").to_pylist()
    assert len(rows) == sum(len(gallery) for gallery in bench.galleries().values())
    green = next(row for row in rows if (row["gallery"], row["query_id"]) == ("Small", "q-green"))
    scores = {number: round(decisions["q-green", number].score, 4) for number in [1, 5, 7, 9]}
    ranked = sorted(scores, key=lambda number: (-scores[number], bench.frame_id(number)))
    assert green["first_rank"] == 1 + min(ranked.index(1), ranked.index(5))
    assert (green["num_frames"], green["num_positives"], green["num_not_judged"]) == (4, 2, 0)


def test_a_query_without_positives_is_left_out_of_the_means_and_counted(tmp_path: Path, model: str) -> None:
    record = evaluate(tmp_path, model).record
    assert record is not None
    assert (record["Large"]["queries"], record["Large"]["queries_with_positives"]) == (4, 3)
    rows = Folder(str(tmp_path / "out")).read_table("per_query.parquet").to_pylist()
    purple = [row for row in rows if row["query_id"] == "q-purple"]
    assert [row["average_precision"] for row in purple] == [None, None]
    assert [row["first_rank"] for row in purple] == [None, None]


def test_an_empty_gallery_gives_nulls_and_no_crash(tmp_path: Path, model: str) -> None:
    pairs = {"Empty": {"q-red": [], "q-purple": [3]}, "Small": bench.galleries()["Small"]}
    data = bench.write_benchmark(tmp_path / "data", pairs=pairs)
    config = EvaluateConfig(data=data, out=str(tmp_path / "out"), models=(model,), resamples=10, threshold=1e9)
    record = run_evaluate(config, Progress()).record
    assert record is not None
    empty = record["Empty"]
    assert [empty[name] for name in ("giou", "ciou", "top1", "mAP", "mINP")] == [None] * 5
    assert empty["interval95"] == {} and empty["pairs"] == 1
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_gallery_for_all_queries_is_each_ones_own(tmp_path: Path) -> None:
    frames = [0, 1, 2, 3]
    together = bench.write_benchmark(tmp_path / "together", pairs={"Small": {ALL_QUERIES: frames, "q-red": [2]}})
    one_by_one = {row["query_id"]: [2] if row["query_id"] == "q-red" else frames for row in bench.queries()}
    apart = bench.write_benchmark(tmp_path / "apart", pairs={"Small": one_by_one})
    both = [open_benchmark(EvaluateConfig(data=data, models=("tiny",))) for data in (together, apart)]
    assert both[0].galleries == both[1].galleries
    assert set(both[0].galleries["Small"]) == set(one_by_one)


def test_no_gallery_at_all_and_an_unknown_one_are_refused(tmp_path: Path, model: str) -> None:
    data = bench.write_benchmark(tmp_path / "none", pairs={})
    with pytest.raises(DataError, match="holds no gallery"):
        run_evaluate(EvaluateConfig(data=data, models=(model,)), Progress())
    with pytest.raises(ConfigError, match=r"no gallery TestG50 .*it holds Small, Large"):
        evaluate(tmp_path, model, gallery=("TestG50",))


def test_a_frame_or_query_that_is_nowhere_is_named(tmp_path: Path, model: str) -> None:
    data = bench.write_benchmark(tmp_path / "frames", pairs={"Small": {"q-red": [1, 77]}})
    with pytest.raises(DataError, match=r"1 of the galleries' 2 frames are not in .*'cam-1/video#77'"):
        run_evaluate(EvaluateConfig(data=data, models=(model,)), Progress())
    data = bench.write_benchmark(tmp_path / "queries", pairs={"Small": {"q-black": [1]}})
    with pytest.raises(DataError, match="query 'q-black' of the galleries has no row"):
        run_evaluate(EvaluateConfig(data=data, models=(model,)), Progress())


def test_a_query_that_cannot_be_used_stops_the_evaluation(tmp_path: Path, model: str) -> None:
    asked = [row | {"image": b"broken"} if row["query_id"] == "q-red" else row for row in bench.queries()]
    data = bench.write_benchmark(tmp_path / "data", asked=asked)
    with pytest.raises(JobError, match="1 of 4 queries cannot be used"):
        run_evaluate(EvaluateConfig(data=data, models=(model,)), Progress())


def test_a_positive_that_could_not_be_judged_counts_as_missed(tmp_path: Path, model: str) -> None:
    rows = bench.frame_rows()
    rows[5]["image"] = b"broken"  # a positive of green
    data = bench.write_benchmark(tmp_path / "data", frames=rows)
    config = EvaluateConfig(data=data, out=str(tmp_path / "out"), models=(model,), max_quarantine_share=0.5)
    record = run_evaluate(config, Progress()).record
    assert record is not None and record["Small"]["not_judged"] == 2  # asked by red and green
    found = Folder(config.out or "").read_table("per_query.parquet").to_pylist()
    green = next(row for row in found if (row["gallery"], row["query_id"]) == ("Small", "q-green"))
    assert green["num_positives"] == 2 and green["average_precision"] <= 0.5
    assert green["inverse_negative_penalty"] == 0.0


def test_a_finished_evaluation_judges_nothing_again_and_another_rule_is_free(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(tmp_path, model)
    monkeypatch.setattr(Judge, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    assert evaluate(tmp_path, model).record == first.record
    gres = evaluate(tmp_path, model, rule="gres", min_mask_px=50).record
    assert gres is not None and gres["Large"]["giou"] != first.record["Large"]["giou"]
    with pytest.raises(ConfigError, match=r"config\.threshold: there 0\.0, now 1\.0"):
        evaluate(tmp_path, model, threshold=1.0)


def test_a_cut_short_evaluation_continues_with_the_missing_part(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(tmp_path / "whole", model)
    plain = steps.MeasurePairs.__call__
    calls: list[str] = []

    def dying(self: steps.MeasurePairs, batch: object) -> object:
        calls.extend(batch.shard.payload["parts"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(self, batch)

    monkeypatch.setattr(steps.MeasurePairs, "__call__", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, model)
    assert evaluate(tmp_path, model).record == whole.record
    assert len(calls) == 4 and calls[0] not in calls[1:]  # three parts, one of them twice


def test_modalities_are_asked_in_one_pass(tmp_path: Path, model: str) -> None:
    record = evaluate(tmp_path, model, modality=("both", "image", "text"), gallery=("Large",)).record
    assert record is not None and list(record) == ["both", "image", "text"]
    assert [record[name]["Large"]["queries"] for name in record] == [4, 4, 3]  # blue has no text
    alone = evaluate(tmp_path / "text", model, modality=("text",), gallery=("Large",)).record
    assert alone == record["text"]
    assert record["image"]["Large"]["best_threshold"] != record["both"]["Large"]["best_threshold"]


def test_a_calibrated_model_that_was_killed_half_way_is_written_again(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "calibrated"

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(calibration.json, "loads", killed)
        calibration.write_calibrated(model, 1.5, str(out))
    assert not out.exists()
    calibration.write_calibrated(model, 1.5, str(out))
    assert load_model(str(out)).config.score_bias == 1.5
    assert sorted(one.name for one in tmp_path.iterdir()) == ["calibrated"]


def test_a_calibrated_model_has_its_best_threshold_at_0(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "calibrated"
    asked = {"gallery": ("Large",), "calibrated": str(out)}
    summary = evaluate(tmp_path, model, **asked)
    before = summary.record
    assert before is not None and summary.details[-1].startswith(f"{out} is {model} with ")
    best = before["Large"]["best_threshold"]
    assert load_model(str(out)).config.score_bias == pytest.approx(best["threshold"])
    after = evaluate(tmp_path / "again", str(out), gallery=("Large",)).record
    assert after is not None
    assert after["Large"]["best_threshold"]["threshold"] == pytest.approx(0, abs=2e-3)
    assert after["Large"]["giou"] == pytest.approx(best["giou"], abs=1e-3)
    assert after["Large"]["mAP"] == pytest.approx(before["Large"]["mAP"])
    with monkeypatch.context() as patched, pytest.raises(ConfigError, match="not empty"):
        patched.setattr(Judge, "load", lambda *_, **__: pytest.fail("refused after judging only"))
        evaluate(tmp_path / "third", model, **asked)
    with pytest.raises(ConfigError, match="not a local folder"):
        evaluate(tmp_path, model, gallery=("Large",), calibrated="s3://models/tiny")
    with pytest.raises(ValidationError, match="not for a table"):
        evaluate(tmp_path, model, gallery=("Large",), calibrated=str(out), table=4)
    with pytest.raises(ValidationError, match="one --gallery"):
        evaluate(tmp_path, model, calibrated=str(out))


def test_the_page_of_the_worst_escapes_what_it_shows(tmp_path: Path, model: str) -> None:
    asked = [row | {"text": "<script>alert(1)</script>"} for row in bench.queries()]
    data = bench.write_benchmark(tmp_path / "data", asked=asked)
    out = tmp_path / "out"
    run_evaluate(EvaluateConfig(data=data, out=str(out), models=(model,), worst=2, resamples=10), Progress())
    page = (out / "worst.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;alert(1)" in page
    assert page.count("<article") == 2 and "Right frames at" in page
    assert page.count('class="model"') >= 5 and page.count('class="truth"') >= 1


def test_recall_ranks_persons_and_frames_by_the_models_encoder(tmp_path: Path, model: str) -> None:
    record = evaluate(tmp_path, model, ranking="recall").record
    assert record is not None
    large = record["Large"]
    assert "giou" not in large and 0 < large["mAP"] <= 1 and 0 < large["frames"]["mAP"] <= 1


def test_the_floor_finds_plain_colours(tmp_path: Path, model: str) -> None:
    record = evaluate(tmp_path, model, ranking="histogram", gallery=("Large",)).record
    assert record is not None
    assert record["Large"]["mAP"] > 0.8 and record["Large"]["top1"] == 1.0
    measured = Ledger.read(Folder(str(tmp_path / "out/persons"))).read_table(["person_id"])
    assert measured.num_rows == sum(len(persons) for persons in bench.FRAMES)


def test_a_detectors_persons_replace_the_true_ones(tmp_path: Path, model: str) -> None:
    rows = bench.frame_rows()
    for row in rows:
        row["persons"] = [{**person, "identity": None, "mask_rle": None} for person in row["persons"][:1]]
    detections = small.write_frames(tmp_path / "detected", rows, rows_per_part=3)
    record = evaluate(tmp_path, model, ranking="histogram", gallery=("Large",), detections=detections).record
    assert record is not None and record["Large"]["mAP"] < 0.8  # every second person was never detected
    judged = evaluate(tmp_path / "judged", model, detections=detections).record
    assert judged is not None and judged["Large"]["positives"] == 10
