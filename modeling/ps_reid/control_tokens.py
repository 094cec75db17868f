"""[SEG], [REJ] and [QRY]: the control tokens that couple retrieval and segmentation (§IV-B.1).

Their input and output rows live here, beside the language model's own vocabulary, so that exactly these rows train and
the tokenizer stays as published. Shapes: D width of the language model, V its vocabulary.
"""

import torch
from torch import Tensor, nn

SEG, REJ, QRY = 0, 1, 2


class ControlTokens(nn.Module):
    """Embedding rows for [SEG] [REJ] [QRY] and output rows for all three."""

    def __init__(self, language_dim: int) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.randn(3, language_dim) * 0.02)
        self.head = nn.Parameter(torch.randn(3, language_dim) * 0.02)

    def start_from(self, embedding_VD: Tensor, head_VD: Tensor) -> None:
        """Sets every row to the mean of the vocabulary's rows, the usual start for added tokens."""
        with torch.no_grad():
            self.embed.copy_(embedding_VD.float().mean(0).expand_as(self.embed) + 0.02 * torch.randn_like(self.embed))
            self.head.copy_(head_VD.float().mean(0).expand_as(self.head) + 0.02 * torch.randn_like(self.head))

    def logits(self, states: Tensor) -> Tensor:
        """(..., D) states to (..., 3) logits of [SEG], [REJ], [QRY]."""
        return states @ self.head.t().to(states.dtype)
