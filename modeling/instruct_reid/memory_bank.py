"""The memory banks of IRM++ (§IV-C, Fig. 7 b): one stored feature for each training identity.

Shapes: B samples; N identities; D width of the stored features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MemoryBank(nn.Module):
    """M_r or M_a: random at first, then the latest feature of each identity. A buffer: saved, never trained."""

    features_ND: Tensor

    def __init__(self, num_identities: int, width: int, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(num_identities, width, generator=generator)
        self.register_buffer("features_ND", F.normalize(start, dim=1))

    def similarity(self, features_BD: Tensor) -> Tensor:
        """(B, N) cosines with every stored feature (eq. 11)."""
        stored_ND = self.features_ND.clone()  # the gradient needs it, and `store` may come before
        return F.normalize(features_BD.float(), dim=1) @ stored_ND.t()

    @torch.no_grad()
    def store(self, features_BD: Tensor, identity_B: Tensor) -> None:
        """Replaces the features of these identities; of several samples of one identity the last stays.

        Called after the loss of a step, so that a sample is compared with earlier ones and not with itself.
        """
        last = {int(identity): row for row, identity in enumerate(identity_B.tolist())}
        rows = torch.tensor(list(last.values()), device=features_BD.device)
        unit = F.normalize(features_BD.detach().float(), dim=1)
        self.features_ND[identity_B[rows]] = unit[rows]
