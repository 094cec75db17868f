"""The editing transformer (§IV-B1, eq. 3-6): a ViT whose layers attend to the instruction through a gate.

The gate starts at zero, so an untrained instruction changes nothing and published ViT weights keep their meaning.
Without an instruction, or built without editing, it is a plain ViT. Layers are named as timm names them.

Shapes: B pictures; N = 1 + parts + patches tokens ([CLS] first); T instruction tokens; D width; I width of the
instruction encoder; H attention heads.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.errors import ConfigError
from modeling.instruct_reid.config import ImageConfig, halvings


@dataclass(frozen=True)
class InstructionTokens:
    """An encoded instruction for each picture."""

    tokens_BTI: Tensor
    """The encoder's last layer, [CLS] first; rows shorter than T are padded."""
    is_token_BT: Tensor
    """bool: False where padded."""

    @property
    def feature_BI(self) -> Tensor:
        """F_T of eq. 8 and F_a of eq. 11: the [CLS] token."""
        return self.tokens_BTI[:, 0]

    def rows(self, chosen: Tensor) -> "InstructionTokens":
        """Some of the rows, by index or by a bool mask."""
        return InstructionTokens(self.tokens_BTI[chosen], self.is_token_BT[chosen])


class EditingAttention(nn.Module):
    """Self-attention plus gated attention to the instruction: eq. 4-6 up to Linear_o.

    M_l [V, V'] of eq. 6 with M_l = [Softmax(S), g Softmax(S')] is the sum computed here. C of eq. 5 is the width of one
    head, as in every multi-head ViT.
    """

    def __init__(self, width: int, num_heads: int, *, instruction_width: int | None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.instruction_kv = None if instruction_width is None else nn.Linear(instruction_width, 2 * width)
        self.gate = None if instruction_width is None else nn.Parameter(torch.zeros(1))

    def forward(self, tokens_BND: Tensor, instruction: InstructionTokens | None) -> Tensor:
        """(B, N, D) after the output projection."""
        query, key, value = (self._split(part) for part in self.qkv(tokens_BND).chunk(3, dim=-1))
        mixed_BHNd = attend(query, key, value)
        if instruction is not None and self.instruction_kv is not None and self.gate is not None:
            key, value = (self._split(part) for part in self.instruction_kv(instruction.tokens_BTI).chunk(2, dim=-1))
            mask = instruction.is_token_BT[:, None, None, :]
            mixed_BHNd = mixed_BHNd + self.gate * attend(query, key, value, mask)
        return self.proj(mixed_BHNd.transpose(1, 2).flatten(2))

    def _split(self, tokens_BND: Tensor) -> Tensor:
        return tokens_BND.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """The feed-forward part of a ViT layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class EditingLayer(nn.Module):
    """One layer F_l of eq. 3: attention, then the feed-forward part, each on normalised tokens and added to them."""

    def __init__(
        self, width: int, num_heads: int, mlp_width: int, *, layer_norm_eps: float, instruction_width: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=layer_norm_eps)
        self.attn = EditingAttention(width, num_heads, instruction_width=instruction_width)
        self.norm2 = nn.LayerNorm(width, eps=layer_norm_eps)
        self.mlp = Mlp(width, mlp_width)

    def forward(self, tokens_BND: Tensor, instruction: InstructionTokens | None = None) -> Tensor:
        tokens_BND = tokens_BND + self.attn(self.norm1(tokens_BND), instruction)
        return tokens_BND + self.mlp(self.norm2(tokens_BND))


class PatchEmbed(nn.Module):
    """A picture as one token a patch, row by row."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        return self.proj(pixels_B3HW).flatten(2).transpose(1, 2)


class ConvNorm(nn.Module):
    """A 3 x 3 convolution and its batch norm."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, map_BChw: Tensor) -> Tensor:
        return self.norm(self.conv(map_BChw))


class ResidualBlock(nn.Module):
    """Two convolutions beside a short way."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels_in, channels_out, stride)
        self.second = ConvNorm(channels_out, channels_out, 1)
        self.short = nn.Conv2d(channels_in, channels_out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, map_BChw: Tensor) -> Tensor:
        return F.relu(self.short(map_BChw) + self.second(F.relu(self.first(map_BChw))))


class ResidualStem(nn.Module):
    """A picture as one token a patch, as `PatchEmbed`, by residual convolutions."""

    def __init__(self, width: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        strides = [2 if place in halvings(channels) else 1 for place in range(len(channels))]
        self.first = ConvNorm(3, channels[0], strides[0])
        steps = zip(channels, channels[1:], strides[1:], strict=False)
        self.blocks = nn.Sequential(*(ResidualBlock(a, b, stride) for a, b, stride in steps))
        self.proj = nn.Conv2d(channels[-1], width, 1)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        map_BChw = F.relu(self.first(pixels_B3HW.contiguous(memory_format=torch.channels_last)))
        return self.proj(self.blocks(map_BChw)).flatten(2).transpose(1, 2)


class EditingTransformer(nn.Module):
    """E_e: a person's picture, and perhaps an instruction, to tokens; the first is [CLS], the feature F."""

    def __init__(self, config: ImageConfig, *, instruction_width: int | None) -> None:
        """`instruction_width` None builds a plain ViT."""
        super().__init__()
        self.config = config
        rows, columns = config.grid
        self.patch_embed: nn.Module = (
            ResidualStem(config.width, config.stem) if config.stem else PatchEmbed(config.width, config.patch_size)
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.part_tokens = nn.Parameter(torch.zeros(1, config.num_parts, config.width)) if config.num_parts else None
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.num_parts + rows * columns, config.width))
        self.blocks = nn.ModuleList(
            EditingLayer(
                config.width, config.num_heads, config.mlp_width, layer_norm_eps=config.layer_norm_eps,
                instruction_width=instruction_width,
            )
            for _ in range(config.num_layers)
        )  # fmt: skip
        self.norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.pool = nn.Linear((1 + config.stripes) * config.width, config.width) if config.stripes else None
        self.apply(initialise)
        if config.stem:  # the convolutions learn first: layers of random weights would only blur what they find
            for name, weight in self.blocks.named_parameters():
                if name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
                    nn.init.zeros_(weight)
        for parameter in (self.cls_token, self.part_tokens, self.pos_embed):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, pixels_B3HW: Tensor, instruction: InstructionTokens | None = None) -> Tensor:
        """(B, N, D) tokens of the last layer, normalised."""
        if pixels_B3HW.shape[-2:] != (self.config.height_px, self.config.width_px):
            raise ConfigError(
                f"pictures are {tuple(pixels_B3HW.shape[-2:])} px (height, width), the model was built for "
                f"{(self.config.height_px, self.config.width_px)}"
            )
        patches = self.patch_embed(pixels_B3HW)
        first: list[Tensor] = [token for token in (self.cls_token, self.part_tokens) if token is not None]
        heads = torch.cat(first, dim=1).expand(len(patches), -1, -1)
        tokens_BND = torch.cat([heads, patches], dim=1) + self.pos_embed
        for block in self.blocks:
            tokens_BND = block(tokens_BND, instruction)
        return self.norm(tokens_BND)

    def feature(self, tokens_BND: Tensor) -> Tensor:
        """(B, D): F of a picture's tokens, those of this transformer or as the attention module changed them."""
        first_BD = tokens_BND[:, 0]
        if self.pool is None:
            return first_BD
        patches_BND = tokens_BND[:, 1 + self.config.num_parts :]
        map_BDhw = patches_BND.transpose(1, 2).unflatten(2, self.config.grid)
        stripes_BDS = F.adaptive_avg_pool2d(map_BDhw, (self.config.stripes, 1)).squeeze(-1)
        return self.pool(torch.cat([first_BD, stripes_BDS.flatten(1)], dim=1))


def attend(query_BHNd: Tensor, key_BHMd: Tensor, value_BHMd: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, H, N, d): softmax attention; `mask` is True where a key may be looked at.

    PyTorch's fused attention is slow to differentiate in bfloat16 on CPUs, so what will be differentiated there is
    written out.
    """
    if query_BHNd.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query_BHNd, key_BHMd, value_BHMd, attn_mask=mask)
    scores_BHNM = (query_BHNd * query_BHNd.shape[-1] ** -0.5) @ key_BHMd.transpose(-1, -2)
    if mask is not None:
        scores_BHNM = scores_BHNM.masked_fill(~mask, float("-inf"))
    return scores_BHNM.softmax(-1).to(value_BHMd.dtype) @ value_BHMd


def initialise(module: nn.Module) -> None:
    """The first ViT's start: Xavier's weights, which keep pictures apart at any width, and zero biases."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.flatten(1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
