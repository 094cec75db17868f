"""How many workers judge and draw masks, alone and on a cluster."""

from typing import Any

import pytest

from workflows.index.workers import MOST_WORKERS, judging_pools, num_cores, on_own_cores
from workflows.search.config import SearchConfig


def settings(**asked: Any) -> SearchConfig:
    return SearchConfig(index="i", queries="q", out="o", **asked)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_alone_the_cores_judge_and_draw_in_turn() -> None:
    assert on_own_cores(settings())
    assert judging_pools(settings(), num_shards=1000) == (None, None)


def test_numbers_that_are_asked_for_are_pools() -> None:
    judges, segmenters = judging_pools(settings(judge_actors=4), num_shards=1000)
    assert judges == (4, 4) and segmenters == (2, MOST_WORKERS)
    judges, segmenters = judging_pools(settings(segment_actors=3), num_shards=1000)
    assert judges == (num_cores(), MOST_WORKERS) and segmenters == (3, 3)
    assert judging_pools(settings(judge_actors=4), num_shards=2)[0] == (2, 2)


def test_a_cluster_and_gpus_have_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judging_pools(settings(gpus_per_actor=1.0), num_shards=1000)[0] == (1, MOST_WORKERS)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert not on_own_cores(settings())
    judges, segmenters = judging_pools(settings(), num_shards=1000)
    assert judges == (num_cores(), MOST_WORKERS) and segmenters == (max(1, num_cores() // 2), MOST_WORKERS)
