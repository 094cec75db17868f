"""What is shared changes nothing: the judge equals one plain Hugging Face forward per pair, in both attentions.

Pairs differ in every way they can: with and without picture or text, texts of any length, frames with no, one, several
and too many detected persons. LoRA is active. Tolerance: 1e-4 in float32, on values of order 1 to 10.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from modeling.ps_reid.config import Attention
from modeling.ps_reid.judge import Judge
from modeling.ps_reid.model import PsReid
from modeling.ps_reid.reference import PlainJudge
from modeling.types import PairDecision, QueryInput, TargetInput
from tests.modeling.ps_reid.small_model import (
    FRAME_HEIGHT,
    FRAME_WIDTH,
    all_pairs,
    grouped_query_model,
    paper_config,
    picture,
    ragged_queries,
    ragged_targets,
    small_config,
    small_model,
)

TOLERANCE = 1e-4

MODELS: dict[str, Callable[[], PsReid]] = {
    "close-ups and grounding": small_model,
    "the paper's scene alone": lambda: small_model(paper_config()),
    "close-ups without grounding": lambda: small_model(small_config(has_grounding=False), seed=1),
    "what is found joins the state": lambda: small_model(small_config(joins_found=True), seed=2),
    "what is found decides through the state": lambda: small_model(
        small_config(joins_found=True, adds_evidence=False), seed=3
    ),
    "two key-value heads for four": lambda: grouped_query_model(2),
    "one key-value head for four": lambda: grouped_query_model(1),
}


def judge_shared(
    model: PsReid,
    attention: Attention,
    queries: dict[str, QueryInput],
    targets: list[TargetInput],
    pairs: list[tuple[str, int]],
) -> list[PairDecision]:
    judge = Judge(model, attention=attention)
    return judge.judge({i: judge.encode_query(q) for i, q in queries.items()}, targets, pairs)


def mask_logits(model: PsReid, decisions: list[PairDecision]) -> torch.Tensor:
    """(P, h, w) mask logits of one and the same picture, the frame stretched to SAM's square, under every prompt."""
    share = torch.tensor([FRAME_WIDTH, FRAME_HEIGHT, FRAME_WIDTH, FRAME_HEIGHT])
    boxes = torch.from_numpy(np.stack([d.prompt.box_xyxy_px for d in decisions])) / share
    prompts = torch.from_numpy(np.stack([d.prompt.embedding for d in decisions]))
    side = model.segmentation.image_size
    with torch.inference_mode():
        embedding = model.segmentation.image_embeddings(torch.randn(1, 3, side, side, generator=torch.manual_seed(0)))
        return model.segmentation.mask_logits(embedding, prompts, boxes)


def assert_same(model: PsReid, got: list[PairDecision], expected: list[PairDecision]) -> None:
    scores, expected_scores = np.array([d.score for d in got]), np.array([d.score for d in expected])
    np.testing.assert_allclose(scores, expected_scores, atol=TOLERANCE, rtol=0)
    boxes, expected_boxes = (np.stack([d.prompt.box_xyxy_px for d in s]) for s in (got, expected))
    np.testing.assert_allclose(boxes, expected_boxes, atol=TOLERANCE * FRAME_WIDTH, rtol=0)
    torch.testing.assert_close(mask_logits(model, got), mask_logits(model, expected), atol=TOLERANCE, rtol=0)
    assert [d.is_match for d in got] == [d.is_match for d in expected]


@pytest.mark.parametrize("attention", ["joint", "separated"])
@pytest.mark.parametrize("make_model", MODELS.values(), ids=MODELS.keys())
def test_equals_one_plain_forward_per_pair(make_model: Callable[[], PsReid], attention: Attention) -> None:
    model, queries, targets = make_model(), ragged_queries(), ragged_targets()
    pairs = all_pairs(queries, targets)
    expected = PlainJudge(model, attention=attention).judge(queries, targets, pairs)
    assert np.std([d.score for d in expected]) > 0.5, "these weights do not tell pairs apart: the test would be blind"
    assert_same(model, judge_shared(model, attention, queries, targets, pairs), expected)


@pytest.mark.parametrize("attention", ["joint", "separated"])
def test_padding_of_the_plain_way_changes_nothing(attention: Attention) -> None:
    model, queries, targets = small_model(), ragged_queries(), ragged_targets()
    pairs = all_pairs(queries, targets)
    alone = PlainJudge(model, attention=attention, pairs_per_batch=1).judge(queries, targets, pairs)
    assert_same(model, PlainJudge(model, attention=attention, pairs_per_batch=7).judge(queries, targets, pairs), alone)


def test_the_two_attentions_differ() -> None:
    model, queries, targets = small_model(), ragged_queries(), ragged_targets()
    pairs = all_pairs(queries, targets)
    joint, separated = (
        np.array([d.score for d in PlainJudge(model, attention=a).judge(queries, targets, pairs)])
        for a in ("joint", "separated")
    )
    assert np.abs(joint - separated).max() > 0.1


def test_without_lora_the_scores_are_others() -> None:
    """LoRA is part of what the tests above compare: switching it off must show."""
    model, queries, targets = small_model(), ragged_queries(), ragged_targets()
    pairs = all_pairs(queries, targets)
    with_lora = judge_shared(model, "separated", queries, targets, pairs)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    without = judge_shared(model, "separated", queries, targets, pairs)
    assert max(abs(a.score - b.score) for a, b in zip(with_lora, without, strict=True)) > 0.1


@pytest.mark.parametrize("attention", ["joint", "separated"])
def test_a_pair_does_not_depend_on_its_batch(attention: Attention) -> None:
    """Alone, among all others, in another order, or in a sparse selection: the same decision."""
    model, queries, targets = small_model(), ragged_queries(), ragged_targets()
    targets = targets + [
        TargetInput(f"more-{i}", picture(i, FRAME_HEIGHT, FRAME_WIDTH), targets[i % 5].boxes_xyxy_px) for i in range(6)
    ]  # more than one batch of targets
    pairs = all_pairs(queries, targets)
    together = dict(zip(pairs, judge_shared(model, attention, queries, targets, pairs), strict=True))
    for chosen in (pairs[::-1], pairs[::4], pairs[3:4], [(pairs[0][0], t) for t in range(len(targets))]):
        got = judge_shared(model, attention, queries, targets, chosen)
        assert_same(model, got, [together[pair] for pair in chosen])
    for pair in pairs[::11]:
        alone = judge_shared(model, attention, {pair[0]: queries[pair[0]]}, [targets[pair[1]]], [(pair[0], 0)])
        assert_same(model, alone, [together[pair]])


def test_a_querys_encoding_does_not_depend_on_its_neighbours() -> None:
    model, queries = small_model(), list(ragged_queries().values())
    judge = Judge(model)
    for query, together in zip(queries, judge.encode_queries(queries), strict=True):
        alone = judge.encode_query(query)
        assert (together.query_id, together.num_bytes) == (query.query_id, alone.num_bytes)
        for name in ("qry_QD", "hint_QD", "metric_QM"):
            got, expected = (getattr(e.encoded, name) for e in (together, alone))
            torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
        for got, expected in zip(together.encoded.kv.keys, alone.encoded.kv.keys, strict=True):
            torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


def test_frames_of_different_sizes_keep_their_own_boxes() -> None:
    """Boxes are returned in the pixels of each frame, whatever stands beside it in the batch."""
    model, queries = small_model(), {"both": ragged_queries()["both"]}
    small, large = ragged_targets()[0], ragged_targets()[3]
    large = TargetInput("large", picture(9, 3 * FRAME_HEIGHT, 2 * FRAME_WIDTH), large.boxes_xyxy_px * 2)
    pairs = [("both", 0), ("both", 1)]
    expected = PlainJudge(model, attention="separated").judge(queries, [small, large], pairs)
    got = judge_shared(model, "separated", queries, [small, large], pairs)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a.prompt.box_xyxy_px, b.prompt.box_xyxy_px, atol=1e-2)
    assert got[1].prompt.box_xyxy_px[2] <= 2 * FRAME_WIDTH and got[1].prompt.box_xyxy_px[3] <= 3 * FRAME_HEIGHT
