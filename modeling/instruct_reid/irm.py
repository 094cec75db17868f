"""IRM and IRM++ (§IV-B and §IV-C): queries and gallery pictures to features whose cosine ranks the gallery.

Both have the same parts. IRM fuses query and gallery picture each with its own instruction; IRM++ fuses the query
alone, so a gallery picture is encoded once for every task. A query without a picture is its text.

Shapes: B pictures or queries; N image tokens; D width, the length of a feature; I width of the instruction encoder.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.errors import DataError
from modeling.instruct_reid.config import IrmConfig
from modeling.instruct_reid.editing import EditingTransformer, InstructionTokens
from modeling.instruct_reid.fusion import AttentionModule
from modeling.instruct_reid.instruction_encoder import InstructionBatch, InstructionEncoder
from modeling.neck import RunningNeck


@dataclass(frozen=True)
class QueryPixels:
    """Queries as tensors."""

    pixels: Tensor | None
    """(B, 3, h, w) normalised crops; None for queries by text alone."""
    instructions: InstructionBatch
    """What is asked of each query; the description itself where there is no picture."""


class RetrievalModel(Protocol):
    """What evaluation and search need of a model."""

    config: IrmConfig

    def query_features(self, queries: QueryPixels) -> Tensor:
        """(B, D) unit vectors."""
        ...

    def gallery_features(self, pixels_B3HW: Tensor, instructions: InstructionBatch | None = None) -> Tensor:
        """(B, D) unit vectors; with instructions in the task-specific setting, without them in the task-free one."""
        ...


class Irm(nn.Module):
    """The parts of Fig. 5, and IRM's own way to make features."""

    def __init__(self, config: IrmConfig, instruction: InstructionEncoder) -> None:
        super().__init__()
        self.config = config
        width, eps = config.image.width, config.image.layer_norm_eps
        self.image = EditingTransformer(
            config.image, instruction_width=config.instruction.width if config.edits else None
        )
        self.instruction = instruction
        self.fusion = AttentionModule(
            width, config.instruction.width, num_layers=config.fusion_layers, num_heads=config.image.num_heads,
            mlp_width=config.image.mlp_width, layer_norm_eps=eps,
        )  # fmt: skip
        self.text_to_image = nn.Linear(config.instruction.width, width)
        # One each: a common one would take the gap between pictures and fused queries for what tells persons apart.
        necks = (RunningNeck(width) if config.has_neck else nn.Identity() for _ in range(3))
        self.picture_neck, self.fused_neck, self.text_neck = necks

    def encode_instructions(self, batch: InstructionBatch) -> InstructionTokens:
        """F_T; a fixed encoder (§V-C) gets no gradient."""
        if not self.config.instruction.is_fixed:
            tokens: InstructionTokens = self.instruction(batch)
            return tokens
        with torch.no_grad():
            return self.instruction(batch)

    def image_tokens(self, pixels_B3HW: Tensor, instruction: InstructionTokens | None = None) -> Tensor:
        """(B, N, D): E_e's tokens, edited when there is an instruction and the model edits; `image.feature` makes F."""
        return self.image(pixels_B3HW, instruction)

    def fuse(self, image_BND: Tensor, instruction: InstructionTokens) -> Tensor:
        """(B, D): F_out = E_f(F, F_T)."""
        return self.image.feature(self.fusion(image_BND, instruction))

    def text_features(self, instruction: InstructionTokens) -> Tensor:
        """(B, D): descriptions in the space of images, for queries without a picture."""
        features: Tensor = self.text_neck(self.text_to_image(instruction.feature_BI))
        return features

    def query_features(self, queries: QueryPixels) -> Tensor:
        """(B, D) unit vectors: the picture edited by and fused with the instruction, or the text."""
        return F.normalize(self.instructed(queries.pixels, self.encode_instructions(queries.instructions)), dim=-1)

    def gallery_features(self, pixels_B3HW: Tensor, instructions: InstructionBatch | None = None) -> Tensor:
        """(B, D) unit vectors; task-free (no instructions), the unedited image, as the baseline IRM* does."""
        if instructions is None:
            return F.normalize(self.picture_neck(self.image.feature(self.image_tokens(pixels_B3HW))), dim=-1)
        return F.normalize(self.instructed(pixels_B3HW, self.encode_instructions(instructions)), dim=-1)

    def instructed(self, pixels_B3HW: Tensor | None, instruction: InstructionTokens) -> Tensor:
        """(B, D): F_out of each picture with its instruction; the text's feature without pictures."""
        if pixels_B3HW is None:
            return self.text_features(instruction)
        if len(pixels_B3HW) != len(instruction.tokens_BTI):
            raise DataError(f"{len(pixels_B3HW)} pictures but {len(instruction.tokens_BTI)} instructions")
        features: Tensor = self.fused_neck(self.fuse(self.image_tokens(pixels_B3HW, instruction), instruction))
        return features


class IrmPlusPlus(nn.Module):
    """IRM's parts, with one task-free feature for every gallery picture."""

    def __init__(self, irm: Irm) -> None:
        super().__init__()
        self.irm = irm
        self.config = irm.config

    def query_features(self, queries: QueryPixels) -> Tensor:
        """(B, D) unit vectors: F_q = E_f(F_I, F_T), or the text."""
        return self.irm.query_features(queries)

    def gallery_features(self, pixels_B3HW: Tensor, instructions: InstructionBatch | None = None) -> Tensor:
        """(B, D) unit vectors: F_g = F_I; instructions are not looked at."""
        return self.irm.gallery_features(pixels_B3HW)
