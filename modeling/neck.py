"""The batch-norm neck of re-identification: between a feature and the cosine that ranks by it.

Shapes: B vectors of width D.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Neck(nn.BatchNorm1d):
    """Takes off what all vectors share, so that cosines tell persons apart.

    Fewer than two rows are normalised by the running statistics, in training too.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, affine=False)

    def forward(self, vectors_BD: Tensor) -> Tensor:
        if self.training and len(vectors_BD) < 2:
            return F.batch_norm(vectors_BD.float(), self.running_mean, self.running_var)
        return super().forward(vectors_BD.float())


class RunningNeck(Neck):
    """A neck for batches that differ in kind: it normalises by running statistics in training as it does later.

    A task a batch, each normalised by itself, teaches features that one set of statistics cannot serve: with this neck
    the tasks have to share one from the start. The statistics follow the batches, the first ones fast.
    """

    slowest = 0.02  # share of a batch in the running statistics

    def forward(self, vectors_BD: Tensor) -> Tensor:
        rows_BD = vectors_BD.float()
        if self.training and len(rows_BD) > 1:
            self._follow(rows_BD.detach())
        return F.batch_norm(rows_BD, self.running_mean, self.running_var, eps=self.eps)

    @torch.no_grad()
    def _follow(self, rows_BD: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = max(self.slowest, 1.0 / int(self.num_batches_tracked))
        self.running_mean.lerp_(rows_BD.mean(0), share)
        self.running_var.lerp_(rows_BD.var(0), share)
