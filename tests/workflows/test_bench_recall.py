"""`psreid bench recall`: the timed search finds what a full sort finds, and a small real run says so in numbers."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from modeling.errors import ConfigError
from modeling.topk import cosine_scores
from ray_jobs.cli import main
from workflows.bench.config import BenchConfig
from workflows.bench.recall import MADE_ROWS, bench_recall, make_embeddings, make_rows, search_rows
from workflows.bench.step import plan_bench
from workflows.config import load_config
from workflows.progress import Progress


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("num_queries", [1, 9])
def test_the_search_equals_a_full_sort(threads: int, num_queries: int) -> None:
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        rows = make_embeddings(0, 7001, 24, pool)
        rows[3000:3100] = rows[0]  # ties across ranges go to the lower row
        queries = torch.cat([rows[:1], make_rows(torch.Generator().manual_seed(1), num_queries - 1, 24)])
        found = search_rows(queries, rows, 20, pool, threads)
    scores = cosine_scores(queries, rows)
    expected = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(found.frames_QK, expected.indices[:, :20])
    assert torch.equal(found.scores_QK, expected.values[:, :20])


def test_embeddings_are_unit_length_and_the_same_whatever_the_blocks() -> None:
    with ThreadPoolExecutor(2) as pool:
        rows = make_embeddings(0, 20_000, 16, pool)
        assert torch.equal(rows[MADE_ROWS:], make_embeddings(MADE_ROWS, 20_000, 16, pool))
    assert rows.dtype == torch.float16
    assert (rows.double().norm(dim=1) - 1).abs().max() < 1e-3


def test_a_small_run_reports_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("faiss")
    command = ["bench", "recall", "--rows", "3000,6000", "--dim", "32", "--queries", "4,1", "--top", "7"]
    assert main([*command, "--threads", "2", "--repeats", "1", "--quiet", "--json"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(row["rows"], row["num_queries"]) for row in record["recall"]] == [
        (3000, 1),
        (3000, 4),
        (6000, 1),
        (6000, 4),
    ]
    for row in record["recall"]:
        assert row["seconds"] > 0
        assert row["ratio"] == pytest.approx(row["faiss_seconds"] / row["seconds"])
        assert row["ms_per_query"] == pytest.approx(1e3 * row["seconds"] / row["num_queries"])
        assert row["same_rows"] > 0.99
    assert record["stream_gb_per_s"] > 0


def test_blocks_find_the_same_rows_as_one() -> None:
    flags = {"what": "recall", "rows": [50_000], "dim": 16, "queries": [3, 5], "top": 9, "repeats": 1, "threads": 2}
    whole = bench_recall(load_config(BenchConfig, flags=flags), Progress())
    in_blocks = bench_recall(load_config(BenchConfig, flags=flags | {"memory_gb": 0.00065}), Progress())
    assert (whole.resident_rows, in_blocks.resident_rows) == (50_000, MADE_ROWS)
    for one, other in zip(whole.timings, in_blocks.timings, strict=True):
        assert (one.rows, one.num_queries, one.bytes_read) == (other.rows, other.num_queries, other.bytes_read)
        assert one.same_rows is None or min(one.same_rows, other.same_rows or 0) > 0.99


def test_too_little_memory_is_refused_before_anything_is_made() -> None:
    with pytest.raises(ConfigError, match=r"too few for faiss's .* Free some, or give fewer rows"):
        bench_recall(load_config(BenchConfig, flags={"what": "recall", "memory_gb": 1e-6}), Progress())


def test_a_plan_names_the_memory() -> None:
    plan = plan_bench(load_config(BenchConfig, flags={"what": "recall"}))
    assert plan.lines["rows"] == "1000000, 10000000"
    assert str(plan.lines["memory"]).startswith("10.2 GB")


def test_recall_takes_no_source() -> None:
    with pytest.raises(ConfigError, match="makes up its own data"):
        load_config(BenchConfig, flags={"what": "recall", "source": "video.mp4"})
