"""How the metric counts in choosing a person and in the score."""

import pytest
import torch
import torch.nn.functional as F

from modeling.ps_reid.grounding import Candidates, Grounding

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
