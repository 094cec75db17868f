"""Necks: what they take off, and what a neck that runs along does in training."""

import torch
import torch.nn.functional as F

from modeling.neck import Neck, RunningNeck


def test_a_neck_normalises_by_the_batch_in_training_and_by_what_it_saw_later() -> None:
    torch.manual_seed(0)
    neck, rows = Neck(5), 3 * torch.randn(64, 5) + 2
    torch.testing.assert_close(neck(rows).mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    assert torch.equal(neck(rows[:1]), F.batch_norm(rows[:1], neck.running_mean, neck.running_var))


def test_a_running_neck_gives_in_training_what_it_gives_later() -> None:
    torch.manual_seed(0)
    neck = RunningNeck(5)
    first, other = 3 * torch.randn(64, 5) + 2, torch.randn(64, 5) - 4
    torch.testing.assert_close(neck(first).mean(0), torch.zeros(5), atol=1e-5, rtol=0)  # a first batch is all it knows
    torch.testing.assert_close(neck.running_var, first.var(0))
    trained = neck(other)
    torch.testing.assert_close(neck.running_mean, (first.mean(0) + other.mean(0)) / 2)
    for _ in range(400):
        neck(first)
        neck(other)
    share = RunningNeck.slowest
    middle = (other.mean(0) + (1 - share) * first.mean(0)) / (2 - share)  # where two in turn settle
    torch.testing.assert_close(neck.running_mean, middle, atol=1e-3, rtol=1e-3)
    trained = neck(first)
    neck.eval()
    torch.testing.assert_close(neck(first), trained)


def test_a_running_neck_passes_gradients_on_and_leaves_single_rows_alone() -> None:
    neck, row = RunningNeck(3), torch.ones(1, 3, requires_grad=True)
    neck(row).sum().backward()
    assert row.grad is not None and (row.grad > 0).all() and int(neck.num_batches_tracked) == 0
