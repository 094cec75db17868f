"""How the metric counts in choosing a person and in the score."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from modeling.errors import ConfigError
from modeling.ps_reid.build import with_finding
from modeling.ps_reid.grounding import Candidates, Grounding
from modeling.ps_reid.judge import Judge
from modeling.ps_reid.model import PsReid
from tests.modeling.ps_reid.small_model import all_pairs, ragged_queries, ragged_targets, small_config, small_model

DIM, METRIC = 6, 4
SCALE = torch.tensor(5.0)


def _candidates() -> Candidates:
    generator = torch.Generator().manual_seed(2)
    boxes = torch.tensor([[0.1, 0.1, 0.2, 0.4], [0.5, 0.1, 0.6, 0.4], [0.0, 0.0, 0.5, 0.5]])
    return Candidates(
        states_NKD=torch.randn(1, 3, DIM, generator=generator),
        boxes_NK4=boxes[None],
        valid_NK=torch.ones(1, 3, dtype=torch.bool),
        close_ups_NCM=F.normalize(torch.randn(1, 2, METRIC, generator=generator), dim=-1),
    )


def _ground(weight: float, query_QM: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    grounding = Grounding(DIM, metric_weight=weight)
    grounded = grounding(torch.ones(1, 1, DIM), query_QM, _candidates(), SCALE)
    return grounded.logits_NQK[0, 0], grounded.evidence_NQ[0, 0]


def test_the_weight_multiplies_what_the_metric_says_and_nothing_else() -> None:
    candidates = _candidates()
    query_QM = F.normalize(torch.tensor([[1.0, 0.2, -0.3, 0.5]]), dim=-1)
    cosines = candidates.close_ups_NCM[0] @ query_QM[0]
    (once, evidence), (thrice, more) = _ground(1.0, query_QM), _ground(3.0, query_QM)
    torch.testing.assert_close(thrice[:2] - once[:2], 2 * SCALE * cosines)
    assert thrice[2] == once[2]  # a scene token has no metric
    assert evidence.item() == pytest.approx((cosines.max().item() - 0.5) * 10)
    torch.testing.assert_close(more, 3 * evidence)


def test_a_frame_without_persons_counts_as_one_with_a_stranger() -> None:
    """Evidence lies below 0 for nearly all frames: without it, a frame of nobody would be ranked first."""
    candidates = _candidates()
    alone = Candidates(
        candidates.states_NKD[:, 2:], candidates.boxes_NK4[:, 2:], candidates.valid_NK[:, 2:],
        candidates.close_ups_NCM[:, :0],
    )  # fmt: skip
    grounded = Grounding(DIM, metric_weight=2.0)(torch.ones(1, 2, DIM), torch.ones(2, METRIC), alone, SCALE)
    assert grounded.evidence_NQ.tolist() == [[-10.0, -10.0]] and grounded.logits_NQK.shape == (1, 2, 1)


def test_a_frame_without_persons_is_judged_alike_beside_fuller_ones() -> None:
    candidates = _candidates()
    empty = torch.tensor([[False, False, True]])
    both = Candidates(
        candidates.states_NKD.expand(2, -1, -1), candidates.boxes_NK4.expand(2, -1, -1),
        torch.cat([candidates.valid_NK, empty]), candidates.close_ups_NCM.expand(2, -1, -1),
    )  # fmt: skip
    grounded = Grounding(DIM)(torch.ones(2, 1, DIM), torch.ones(1, METRIC), both, SCALE)
    assert grounded.evidence_NQ[1].tolist() == [-5.0]


def test_what_is_pointed_to_joins_the_state_and_nothing_does_before_it_has_learned() -> None:
    torch.manual_seed(0)
    grounding, candidates = Grounding(DIM, metric_weight=3.0, joins_found=True), _candidates()
    decision, query_QM = torch.randn(1, 2, DIM), F.normalize(torch.randn(2, METRIC), dim=-1)
    finding = grounding.finding
    assert finding is not None
    assert torch.equal(grounding(decision, query_QM, candidates, SCALE).states_NQD, decision)
    torch.nn.init.normal_(finding.join.weight)
    torch.nn.init.normal_(finding.lean.weight)
    grounded = grounding(decision, query_QM, candidates, SCALE)
    for query in range(2):
        pointed = grounded.logits_NQK[0, query].softmax(-1)
        seen = sum(share * state for share, state in zip(pointed, candidates.states_NKD[0], strict=True))
        evidence = (candidates.close_ups_NCM[0] @ query_QM[query]).max() * 10 - 5
        mixed = finding.mix(torch.cat([decision[0, query], seen, evidence[None]]))
        joined = finding.join(F.gelu(mixed)) + evidence * finding.lean.weight[:, 0]
        torch.testing.assert_close(grounded.states_NQD[0, query], decision[0, query] + joined)


def test_a_trained_model_learns_to_join_what_it_finds_from_where_it_was() -> None:
    queries, targets = ragged_queries(), ragged_targets()
    pairs = all_pairs(queries, targets)

    def scores(model: PsReid) -> list[float]:
        judge = Judge(model)
        encoded = {query_id: judge.encode_query(query) for query_id, query in queries.items()}
        return [decision.score for decision in judge.judge(encoded, targets, pairs)]

    before = scores(small_model())
    model = with_finding(small_model())
    assert model.config.joins_found and scores(model) == before
    model.config = model.config.model_copy(update={"adds_evidence": False})
    assert max(abs(score) for score in scores(model)) < max(abs(score) for score in before)
    with pytest.raises(ValidationError, match="the metric would reach no score"):
        small_config(adds_evidence=False)
    with pytest.raises(ConfigError, match="has no grounding"):
        with_finding(small_model(small_config(has_grounding=False)))
