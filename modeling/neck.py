"""The batch-norm neck of re-identification: between a feature and the cosine that ranks by it.

Shapes: B vectors of width D.
"""

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
