"""The role adapters of Fig. 6 and eq. 2-3: one for the query's picture, one for the target's.

Shapes: B images, V visual tokens, C width of the vision encoder, D width of the language model.
"""

import torch
from torch import Tensor, nn


class RoleAdapter(nn.Module):
    """Two linear layers from vision features (B, V, C) to language embeddings (B, V, D) (§V-A.3)."""

    def __init__(self, vision_dim: int, hidden_dim: int, language_dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(vision_dim, hidden_dim)
        self.project = nn.Linear(hidden_dim, language_dim)

    def forward(self, features_BVC: Tensor) -> Tensor:
        return self.project(nn.functional.gelu(self.expand(features_BVC)))


class PlaceEmbedding(nn.Module):
    """Where a visual token lies in its frame: (..., 4) boxes, xyxy as shares of width and height, to (..., D).

    It tells the language model which close-up shows which part of the scene (ours; the paper shows the scene alone).
    """

    def __init__(self, language_dim: int, num_frequencies: int = 6) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.pi * 2.0 ** torch.arange(num_frequencies), persistent=False)
        self.frequencies: Tensor
        self.project = nn.Linear(4 * 2 * num_frequencies, language_dim)

    def forward(self, boxes: Tensor) -> Tensor:
        angles = (boxes[..., None] * self.frequencies).flatten(-2)
        return self.project(torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.project.weight.dtype))
