"""`psreid bench`: token counts and promises by hand, the stopwatch on a made-up clock, and one small real run."""

import json
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest
import torch

from modeling.errors import ConfigError, DataError
from modeling.ps_reid.checkpoint import save_model
from modeling.ps_reid.judge import Judge
from ray_jobs.cli import main
from tests.modeling.ps_reid.small_model import small_config, small_model
from tests.workflows.synthetic_archive import make_archive
from workflows.bench.config import BenchConfig
from workflows.bench.memory import MIB, Peaks, _look, _watching, repeat_videos
from workflows.bench.pairs import PERSONS, all_pairs, made_up_queries, made_up_targets, spread_pairs
from workflows.bench.promise import TokenCounts, TokenPrices, count_tokens, promised_ratio, token_prices
from workflows.bench.step import plan_bench
from workflows.bench.stopwatch import Stopwatch
from workflows.config import load_config

COUNTS = TokenCounts(query=30, target=300, decision=5, query_vision=20, target_vision=300)


def test_language_tokens_follow_the_formulas() -> None:
    """Two queries on ten targets: 20 x 335, 2 x 30 + 20 x 305, 2 x 30 + 10 x 300 + 20 x 5."""
    assert [COUNTS.language(way, 2, 10) for way in ("plain", "joint", "separated")] == [6700, 6160, 3160]


def test_vision_tokens_are_repeated_by_the_plain_way_alone() -> None:
    assert [COUNTS.vision(way, 2, 10) for way in ("plain", "joint", "separated")] == [6400, 3040, 3040]


def test_the_promise_weighs_both_by_their_price() -> None:
    prices = TokenPrices(language_flops=2.0, vision_flops=3.0)
    plain, separated = 2 * 6700 + 3 * 6400, 2 * 3160 + 3 * 3040
    assert promised_ratio(COUNTS, prices, "separated", 2, 10) == pytest.approx(plain / separated)
    assert promised_ratio(COUNTS, prices, "plain", 2, 10) == 1.0
    free_vision = TokenPrices(language_flops=1.0, vision_flops=0.0)
    assert promised_ratio(COUNTS, free_vision, "joint", 2, 10) == pytest.approx(6700 / 6160)


def test_counted_tokens_are_those_the_model_runs() -> None:
    model = small_model()
    judge, queries, targets = Judge(model), made_up_queries(6), made_up_targets(8)
    counts = count_tokens(model, queries, targets)
    encoded = [judge.encode_query(query).encoded for query in queries.values()]
    assert counts.query == pytest.approx(sum(int(e.kv.valid_BT.sum()) for e in encoded) / 6)
    with torch.inference_mode():
        tokens = model.target_tokens(judge._processor.targets(targets))
        question = model.question_embeds(encoded[0].hint_QD)
    assert counts.target == int(tokens.valid_NT.sum()) / 8
    assert counts.decision == question.shape[1]
    assert counts.query_vision == pytest.approx(8 * 4 / 6)  # four of six have a picture of 4 x 2 tokens


def test_prices_count_every_matrix_once() -> None:
    """Width 64, two layers: four square projections and three of the feed-forward part, LoRA on two projections."""
    prices = token_prices(small_model())
    per_layer = 4 * 64 * 64 + 3 * 64 * 96 + 2 * 8 * (64 + 64)
    assert prices.language_flops == 2 * 2 * per_layer
    config = small_config()
    width, mlp, patch = 32, 64, 3 * 8 * 8
    vision = 2 * (4 * width * width + 2 * width * mlp) + patch * width
    assert prices.vision_flops == 2 * (vision + width * config.adapter_hidden + config.adapter_hidden * 64)


def test_a_sample_uses_targets_and_queries_evenly_and_no_pair_twice() -> None:
    queries = made_up_queries(8)
    sample = spread_pairs(queries, 16, 48)
    assert len(set(sample)) == 48
    assert set(Counter(target for _, target in sample).values()) == {3}
    assert set(Counter(query for query, _ in sample).values()) == {6}
    assert sorted(spread_pairs(queries, 16, 999)) == sorted(all_pairs(queries, 16))


def test_any_few_targets_hold_the_same_persons() -> None:
    counts = [len(target.boxes_xyxy_px) for target in made_up_targets(24)]
    assert {tuple(sorted(counts[i : i + len(PERSONS)])) for i in range(16)} == {tuple(sorted(PERSONS))}


def test_the_stopwatch_counts_nested_time_once() -> None:
    now = [0.0]

    class Work:
        def outer(self) -> str:
            now[0] += 1
            self.inner()
            self.inner()
            return "done"

        def inner(self) -> None:
            now[0] += 10

    work, watch = Work(), Stopwatch(lambda: now[0])
    with watch.watch([(work, "outer", "language"), (work, "inner", "vision")]):
        assert work.outer() == "done"
    work.outer()  # no longer watched
    assert watch.seconds == {"language": 1.0, "vision": 20.0}


def test_a_bench_needs_what_it_works_on() -> None:
    for what in ("ingest", "pipeline"):
        with pytest.raises(ConfigError, match=f"bench {what} needs"):
            load_config(BenchConfig, flags={"what": what})
    with pytest.raises(ConfigError, match="takes no source"):
        load_config(BenchConfig, flags={"what": "judge", "source": "video.mp4"})
    with pytest.raises(ConfigError, match="clock cpu"):
        load_config(BenchConfig, flags={"what": "judge", "device": "cuda", "clock": "cpu"})
    assert plan_bench(BenchConfig(what="pipeline", source="frames")).expected_s == 180


def test_bench_judge_runs_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(small_model(), tmp_path)
    flags = ["--queries", "1,16", "--targets", "8", "--repeats", "1", "--sample-pairs", "8", "--threads", "1", "--json"]
    assert main(["bench", "judge", "--model", str(tmp_path), "--quiet", *flags]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["judge"]
    assert [(row["queries"], row["way"]) for row in rows] == [
        (q, way) for q in (1, 16) for way in ("plain", "joint", "separated")
    ]
    for row in rows:
        assert row["pairs_per_s"] == pytest.approx(8 * row["queries"] / row["seconds"])
        assert sum(row["seconds_in"].values()) == pytest.approx(row["seconds"])
        assert row["reached"] == pytest.approx(row["ratio"] / row["promise"])
    by_way = {row["way"]: row for row in rows[3:]}
    assert by_way["plain"]["timed_pairs"] == 8 and by_way["separated"]["timed_pairs"] == 128
    assert by_way["separated"]["ratio"] > 2, "sharing 16 queries must show even on a small model"


def test_a_larger_archive_repeats_the_videos_with_their_detections(tmp_path: Path) -> None:
    archive, larger = tmp_path / "archive", tmp_path / "larger"
    make_archive(str(archive), frames=24)
    larger.mkdir()
    videos = sorted((archive / "videos").glob("*.mp4"))
    frames = repeat_videos(archive, larger, 50)
    links = sorted((larger / "videos").iterdir())
    assert 50 <= frames < 50 + 24 and len(links) > len(videos)
    assert {link.name.removesuffix(".mp4") for link in links} == {
        file.name.removesuffix(".det.txt") for file in (larger / "detections").iterdir()
    }
    with pytest.raises(DataError, match="psreid synth"):
        repeat_videos(tmp_path, larger, 1)


def test_peaks_are_those_of_the_step_and_its_workers(tmp_path: Path) -> None:
    """A process that holds 200 MB for a second, watched."""
    process = get_context("spawn").Process(target=_hold, args=(200,))
    process.start()
    peaks = Peaks()
    with _watching(lambda: _look(psutil.Process(process.pid), peaks)):
        process.join()
    assert 200 <= peaks.driver / MIB < 1500  # and what this module imports
    assert peaks.largest_worker == 0


def _hold(megabytes: int) -> None:
    held = b"x" * (megabytes * MIB)
    time.sleep(1.5)
    del held
