"""The attention module E_f (§IV-B): image tokens and instruction tokens attend to each other, [CLS] comes out.

Each layer's contribution starts at zero, so at first F_out is F and the fused query lies where gallery features lie.

Shapes: B pictures; N image tokens; T instruction tokens; D width; I width of the instruction encoder.
"""

import torch
from torch import Tensor, nn

from modeling.instruct_reid.editing import InstructionTokens, Mlp, attend, initialise


class FusionLayer(nn.Module):
    """A transformer layer over both kinds of tokens; padded instruction tokens are never attended to."""

    def __init__(self, width: int, num_heads: int, mlp_width: int, *, layer_norm_eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=layer_norm_eps) for _ in range(2))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = Mlp(width, mlp_width)

    def forward(self, tokens_BMD: Tensor, is_token_BM: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(tokens_BMD)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        mixed = attend(query, key, value, is_token_BM[:, None, None, :])
        tokens_BMD = tokens_BMD + self.proj(mixed.transpose(1, 2).flatten(2))
        return tokens_BMD + self.mlp(self.norm2(tokens_BMD))


class AttentionModule(nn.Module):
    """F_out = E_f(F, F_T)."""

    def __init__(
        self, width: int, instruction_width: int, *, num_layers: int, num_heads: int, mlp_width: int,
        layer_norm_eps: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.into = nn.Linear(instruction_width, width)
        self.kind = nn.Parameter(torch.zeros(1, 1, width))
        self.layers = nn.ModuleList(
            FusionLayer(width, num_heads, mlp_width, layer_norm_eps=layer_norm_eps) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.apply(initialise)
        for layer in self.layers:
            assert isinstance(layer, FusionLayer)
            nn.init.zeros_(layer.proj.weight)
            nn.init.zeros_(layer.mlp.fc2.weight)

    def forward(self, image_BND: Tensor, instruction: InstructionTokens) -> Tensor:
        """(B, N, D): the image tokens, each having looked at the words."""
        words_BTD = self.into(instruction.tokens_BTI) + self.kind
        is_image = instruction.is_token_BT.new_ones(image_BND.shape[:2])
        tokens_BMD = torch.cat([image_BND, words_BTD], dim=1)
        is_token_BM = torch.cat([is_image, instruction.is_token_BT], dim=1)
        for layer in self.layers:
            tokens_BMD = layer(tokens_BMD, is_token_BM)
        return self.norm(tokens_BMD[:, : image_BND.shape[1]])
