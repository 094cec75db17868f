"""Every loss term against slow plain Python and against numbers worked out by hand; gradients stay finite."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from modeling.ps_reid import losses
from modeling.ps_reid.losses import LossTerms, LossWeights
from tests.modeling.ps_reid import slow_losses


def states_at(distances: list[list[float]]) -> tuple[Tensor, Tensor]:
    """[QRY] states (Q, 2) and target states (N, Q, 2) with the wanted cosine distances (Q rows, N columns)."""
    cosine_QN = 1 - torch.tensor(distances)
    states_QN2 = torch.stack([cosine_QN, (1 - cosine_QN**2).sqrt()], dim=-1)
    qry_Q2 = torch.tensor([[2.0, 0.0]]).expand(len(distances), -1)  # length does not matter
    return qry_Q2, states_QN2.transpose(0, 1) * 3.0


@pytest.mark.parametrize(("negatives", "expected"), [("hard", 0.0794260), ("literal", 0.0240023)])
def test_reid_loss_by_hand(negatives: str, expected: float) -> None:
    """d+ = 0.439475 from 0.2 and 0.6; d- = 0.688770 (hard) or 0.811230 (literal) from 0.5 and 1.0; tau 0.1."""
    qry, states = states_at([[0.2, 0.6, 0.5, 1.0]])
    is_positive_NQ = torch.tensor([[True], [True], [False], [False]])
    loss = losses.reid_loss(qry, states, is_positive_NQ, tau=0.1, negatives=negatives)
    assert loss.item() == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("negatives", ["hard", "literal"])
def test_reid_loss_equals_plain_python(negatives: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        distances = rng.uniform(0.05, 1.9, (4, 6)).tolist()
        positive_QN = rng.uniform(size=(4, 6)) < 0.4
        qry, states = states_at(distances)
        loss = losses.reid_loss(qry, states, torch.from_numpy(positive_QN.T), tau=0.3, negatives=negatives)
        expected = slow_losses.eq9(distances, positive_QN.tolist(), 0.3, negatives)
        assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_hard_negatives_weigh_the_close_one_more() -> None:
    """With one close and one far negative, "hard" gives a smaller d-, hence a larger loss, than "literal"."""
    qry, states = states_at([[0.3, 0.2, 1.8]])
    is_positive = torch.tensor([[True], [False], [False]])
    hard, literal = (losses.reid_loss(qry, states, is_positive, tau=0.1, negatives=n) for n in ("hard", "literal"))
    assert hard.item() > literal.item() + 0.1


def test_reid_loss_leaves_out_queries_without_positive_or_negative() -> None:
    distances = [[0.2, 0.6, 0.5, 1.0], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]]
    positive_NQ = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0]], dtype=torch.bool)
    qry, states = states_at(distances)
    loss = losses.reid_loss(qry, states, positive_NQ, tau=0.1)
    assert loss.item() == pytest.approx(0.0794260, abs=2e-5)
    nothing = losses.reid_loss(qry[1:], states[:, 1:], positive_NQ[:, 1:], tau=0.1)
    assert nothing.item() == 0.0


def test_reid_loss_refuses_another_reading() -> None:
    qry, states = states_at([[0.2, 0.6]])
    with pytest.raises(ValueError, match="hard"):
        losses.reid_loss(qry, states, torch.tensor([[True], [False]]), tau=0.1, negatives="easy")


def test_text_loss_by_hand() -> None:
    """Two answers among three tokens: -log softmax, then the mean; weights make it a weighted mean."""
    logits = torch.tensor([[0.0, 0.0, 0.0], [np.log(2.0), 0.0, 0.0]])
    answers = torch.tensor([1, 0])
    assert losses.text_loss(logits, answers).item() == pytest.approx((np.log(3) + np.log(2)) / 2, abs=1e-6)
    weighted = losses.text_loss(logits, answers, weight_of_answer=torch.tensor([3.0, 1.0, 1.0]))
    assert weighted.item() == pytest.approx((np.log(3) + 3 * np.log(2)) / 4, abs=1e-6)


def test_mask_losses_equal_plain_python() -> None:
    rng = np.random.default_rng(1)
    logits, truth = rng.normal(size=(3, 5, 4)), rng.uniform(size=(3, 5, 4)) < 0.3
    tensors = torch.from_numpy(logits).float(), torch.from_numpy(truth)
    flat = [(x.ravel().tolist(), t.ravel().tolist()) for x, t in zip(logits, truth, strict=True)]
    bce = losses.weighted_bce_loss(*tensors, foreground=3.0)
    assert bce.item() == pytest.approx(np.mean([slow_losses.weighted_bce(x, t, 3.0) for x, t in flat]), abs=1e-5)
    dice = losses.dice_loss(*tensors)
    assert dice.item() == pytest.approx(np.mean([slow_losses.dice(x, t) for x, t in flat]), abs=1e-5)


def test_a_perfect_mask_costs_nothing() -> None:
    truth = torch.zeros(1, 8, 8, dtype=torch.bool)
    truth[:, 2:5, 2:5] = True
    logits = torch.where(truth, 40.0, -40.0)
    assert losses.dice_loss(logits, truth).item() == pytest.approx(0, abs=1e-5)
    assert losses.weighted_bce_loss(logits, truth, foreground=3.0).item() == pytest.approx(0, abs=1e-5)


def test_a_soft_truth_costs_least_where_it_is_met() -> None:
    truth = torch.tensor([[[0.1, 0.25], [0.5, 0.9]]])
    logits = truth.logit().requires_grad_()
    losses.weighted_bce_loss(logits, truth, foreground=3.0).backward()
    assert logits.grad is not None and logits.grad.abs().max() < 1e-6
    nearer, farther = (losses.dice_loss((truth + shift).logit(), truth) for shift in (0.01, -0.05))
    assert nearer < farther


def test_smooth_l1_is_quadratic_below_beta_and_linear_above() -> None:
    """With beta 0.02: 0.01 costs 0.01² / 0.04, 0.02 costs 0.01, and 0.12 costs 0.12 - 0.01."""
    truth = torch.zeros(1, 4)
    at_beta = losses.smooth_l1_loss(torch.full((1, 4), 0.02), truth)
    half_beta = losses.smooth_l1_loss(torch.full((1, 4), 0.01), truth)
    far = losses.smooth_l1_loss(torch.full((1, 4), 0.12), truth)
    assert (at_beta.item(), half_beta.item(), far.item()) == pytest.approx((0.01, 0.0025, 0.11), abs=1e-6)


def test_ciou_equals_the_scalar_formula() -> None:
    rng = np.random.default_rng(2)
    corner, size = rng.uniform(0, 0.6, (20, 2)), rng.uniform(0.02, 0.4, (20, 2))
    truth_corner, truth_size = corner + rng.normal(0, 0.1, (20, 2)), rng.uniform(0.02, 0.4, (20, 2))
    boxes = np.concatenate([corner, corner + size], 1)
    truth = np.concatenate([truth_corner, truth_corner + truth_size], 1)
    expected = np.mean([slow_losses.ciou(a, b) for a, b in zip(boxes.tolist(), truth.tolist(), strict=True)])
    got = losses.ciou_loss(torch.from_numpy(boxes).float(), torch.from_numpy(truth).float())
    assert got.item() == pytest.approx(expected, abs=1e-4)


def test_ciou_by_hand() -> None:
    """Equal boxes: 0. Side by side squares: IoU 0, centres one side apart, hull 2 x 1: 1 + 1 / 5."""
    square = torch.tensor([[0.0, 0.0, 0.2, 0.2]])
    assert losses.ciou_loss(square, square).item() == pytest.approx(0, abs=1e-6)
    beside = torch.tensor([[0.2, 0.0, 0.4, 0.2]])
    assert losses.ciou_loss(square, beside).item() == pytest.approx(1.2, abs=1e-5)


def test_box_losses_of_no_pair_are_zero() -> None:
    """A batch without positives (most of an archive) must not turn the sum into NaN."""
    nothing = torch.zeros(0, 4, requires_grad=True)
    for loss in (losses.smooth_l1_loss(nothing, torch.zeros(0, 4)), losses.ciou_loss(nothing, torch.zeros(0, 4))):
        assert loss.item() == 0.0
        loss.backward()


def test_metric_loss_equals_plain_python() -> None:
    generator = torch.manual_seed(0)
    query = torch.nn.functional.normalize(torch.randn(3, 8, generator=generator), dim=-1)
    person = torch.nn.functional.normalize(torch.randn(5, 8, generator=generator), dim=-1)
    is_same = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    got = losses.metric_loss(query, person, is_same, torch.tensor(7.0))
    logits = 7 * query @ person.t()
    rows = slow_losses.contrast(logits.tolist(), is_same.tolist())
    columns = slow_losses.contrast(logits.t().tolist(), is_same.t().tolist())
    assert got.item() == pytest.approx((rows + columns) / 2, abs=1e-5)


def test_grounding_loss_by_hand() -> None:
    """Shares 1/2, 1/4, 1/4: right are the last two of pair 0, so -log 1/2; pair 1 has no right one and is left out."""
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]))
    is_right = torch.tensor([[False, True, True], [False, False, False]])
    assert losses.grounding_loss(logits, is_right).item() == pytest.approx(np.log(2), abs=1e-6)
    assert losses.grounding_loss(logits, torch.zeros_like(is_right)).item() == 0.0


GRADIENT_CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "reid, a query that is its own target": lambda x: losses.reid_loss(
        x[0, :1, :4], torch.cat([x[0, :1, None, :4], x[1, :1, None, :4]]), torch.tensor([[True], [False]]), tau=0.1
    ),
    "ciou, boxes apart": lambda x: losses.ciou_loss(x[0, :, :4].cumsum(1), x[1, :, :4].cumsum(1).detach() + 3),
    "ciou, equal boxes": lambda x: losses.ciou_loss(x[0, :, :4].cumsum(1), x[0, :, :4].cumsum(1).detach()),
    "metric, all the same person": lambda x: losses.metric_loss(
        x[0, :, :4], x[1, :, :4], torch.ones(3, 3, dtype=torch.bool), torch.tensor(5.0)
    ),
    "metric, nobody the same": lambda x: losses.metric_loss(
        x[0, :, :4], x[1, :, :4], torch.zeros(3, 3, dtype=torch.bool), torch.tensor(5.0)
    ),
    "grounding, a candidate that is padding": lambda x: losses.grounding_loss(
        x[0].masked_fill(torch.arange(8) == 7, float("-inf")), (torch.arange(8) == 2).expand(3, -1)
    ),
    "dice and bce, saturated": lambda x: (
        losses.dice_loss(x * 100, torch.zeros(2, 3, 8))
        + losses.weighted_bce_loss(x * 100, torch.ones(2, 3, 8), foreground=3.0)
    ),
}


@pytest.mark.parametrize("loss_of", GRADIENT_CASES.values(), ids=GRADIENT_CASES.keys())
def test_gradients_are_finite(loss_of: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(2, 3, 8, generator=torch.manual_seed(0)).add(0.1).requires_grad_()
    loss = loss_of(x)
    loss.backward()
    assert torch.isfinite(loss)
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_total_is_eq8_with_the_papers_weights() -> None:
    terms = LossTerms(*(torch.tensor(float(2**i)) for i in range(8)))
    assert terms.total(LossWeights()).item() == 1 + 2 + 2 * 4 + 8 + 16 + 32 + 64 + 128
    assert terms.total(LossWeights(metric=0.0, grounding=0.0, reid=0.5)).item() == 0.5 + 2 + 2 * 4 + 8 + 16 + 32
