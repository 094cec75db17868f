"""The judge's contract: what it refuses, what it returns, and in which order. Exactness is in test_exactness.py."""

import numpy as np
import pytest

from modeling.errors import ConfigError, DataError
from modeling.ps_reid.judge import Judge
from modeling.ps_reid.reference import PlainJudge
from modeling.types import QueryInput, TargetInput
from tests.modeling.ps_reid.small_model import (
    FRAME_HEIGHT,
    FRAME_WIDTH,
    all_pairs,
    ragged_queries,
    ragged_targets,
    small_config,
    small_model,
)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(small_model())


def test_an_unknown_query_is_named(judge: Judge) -> None:
    with pytest.raises(DataError, match="'stranger'"):
        judge.judge({}, ragged_targets(), [("stranger", 0)])


@pytest.mark.parametrize("number", [-1, 5, 99])
def test_a_target_that_is_not_there_is_named(judge: Judge, number: int) -> None:
    queries = {"text": judge.encode_query(ragged_queries()["text"])}
    with pytest.raises(DataError, match=rf"target {number}.*0 to 4"):
        judge.judge(queries, ragged_targets(), [("text", 0), ("text", number)])


def test_bad_settings_list_the_good_ones() -> None:
    model = small_model()
    with pytest.raises(ConfigError, match="float32, bfloat16"):
        Judge(model, dtype="float64")
    with pytest.raises(ConfigError, match="joint, separated"):
        Judge(model, attention="sideways")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="joint, separated"):
        PlainJudge(model, attention="sideways")  # type: ignore[arg-type]


def test_a_query_of_nothing_is_refused() -> None:
    for text in (None, "", "  \n"):
        with pytest.raises(DataError, match="neither an image nor a text"):
            QueryInput("empty", None, text)


@pytest.mark.parametrize("attention", ["joint", "separated"])
def test_nothing_to_judge_gives_nothing(attention: str) -> None:
    judge = Judge(small_model(), attention=attention)  # type: ignore[arg-type]
    assert judge.judge({}, [], []) == []
    assert judge.judge({}, ragged_targets(), []) == []


@pytest.mark.parametrize("attention", ["joint", "separated"])
def test_a_pair_asked_twice_is_answered_twice(attention: str) -> None:
    judge = Judge(small_model(), attention=attention)  # type: ignore[arg-type]
    queries = {"text": judge.encode_query(ragged_queries()["text"])}
    first, second, third = judge.judge(queries, ragged_targets(), [("text", 2), ("text", 0), ("text", 2)])
    assert first.score == third.score != second.score


def test_the_threshold_decides() -> None:
    model, queries, targets = small_model(), ragged_queries(), ragged_targets()
    pairs = all_pairs(queries, targets)

    def matches(threshold: float) -> list[bool]:
        judge = Judge(model, threshold=threshold)
        return [d.is_match for d in judge.judge({i: judge.encode_query(q) for i, q in queries.items()}, targets, pairs)]

    scores = [d.score for d in PlainJudge(model).judge(queries, targets, pairs)]
    middle = float(np.median(scores)) + 1e-3
    assert matches(middle) == [score > middle for score in scores]
    assert not any(matches(1e6))


def test_the_mode_of_training_is_the_default() -> None:
    model = small_model(small_config().model_copy(update={"attention": "joint"}))
    assert Judge(model).attention == "joint"
    assert Judge(model, attention="separated").attention == "separated"


def test_boxes_stay_in_the_frame(judge: Judge) -> None:
    queries = {i: judge.encode_query(q) for i, q in ragged_queries().items()}
    beyond = np.array([[-20, -10, 50, 60], [100, 20, 400, 300]], dtype=np.float32)
    target = TargetInput("beyond", ragged_targets()[0].image, beyond)
    for decision in judge.judge(queries, [target], [(i, 0) for i in queries]):
        left, top, right, bottom = decision.prompt.box_xyxy_px
        assert 0 <= left <= right <= FRAME_WIDTH and 0 <= top <= bottom <= FRAME_HEIGHT


def test_a_changed_query_under_the_same_id_is_seen(judge: Judge) -> None:
    """The judge keeps stacks of queries; a new encoding under an old name must not meet an old stack."""
    queries, targets = ragged_queries(), ragged_targets()[:2]
    pairs = [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    encoded = {i: judge.encode_query(q) for i, q in queries.items()}
    judge.judge({"a": encoded["image"], "b": encoded["text"]}, targets, pairs)
    got = judge.judge({"a": encoded["both"], "b": encoded["long text"]}, targets, pairs)
    fresh = Judge(judge.model).judge({"a": encoded["both"], "b": encoded["long text"]}, targets, pairs)
    assert [d.score for d in got] == pytest.approx([d.score for d in fresh], abs=1e-5)


def test_bfloat16_stays_close(judge: Judge) -> None:
    queries, targets = ragged_queries(), ragged_targets()
    pairs = all_pairs(queries, targets)
    exact = PlainJudge(judge.model).judge(queries, targets, pairs)
    for attention in ("joint", "separated"):
        rough = Judge(judge.model, attention=attention, dtype="bfloat16")  # type: ignore[arg-type]
        got = rough.judge({i: rough.encode_query(q) for i, q in queries.items()}, targets, pairs)
        if attention == "separated":
            deviation = np.array([a.score - b.score for a, b in zip(got, exact, strict=True)])
            assert np.abs(deviation).mean() < 0.05 * np.std([d.score for d in exact]) + 0.3
        assert np.isfinite([d.score for d in got]).all()


def test_an_encoded_query_knows_its_size(judge: Judge) -> None:
    short, long = (judge.encode_query(ragged_queries()[i]) for i in ("text", "both, long"))
    assert 0 < short.num_bytes < long.num_bytes
