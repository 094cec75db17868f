"""An instruct-ReID model as PS-ReID's metric: recall and judgment measure persons alike (ours, not in the papers).

A close-up is a gallery picture without a task, a query is fused with what it asks (IRM++, §IV-C of its paper). So the
judge compares the very features that the index holds, and a query's task counts in judging too.

Shapes: Q queries, B crops, H W pixels of a crop as PS-ReID sees it, M width of a feature.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.instruct_reid.checkpoint import for_retrieval
from modeling.instruct_reid.instructions import Instruction
from modeling.instruct_reid.irm import Irm, IrmPlusPlus, QueryPixels

Rgb = tuple[float, float, float]

START_SCALE = 1 / 0.07
"""What cosines are multiplied with at first: the usual inverse temperature of contrastive training."""


@dataclass(frozen=True)
class Asked:
    """What a query asks of an instruct-ReID model."""

    has_picture: bool
    """Whether its picture counts; without it the instruction is the description itself."""
    instruction: Instruction


class InstructMetric(nn.Module):
    """A trained IRM or IRM++ that stays as it is: its weights are neither parameters nor state of this module.

    It has a folder of its own, so that index and judge can share it.
    """

    def __init__(self, irm: Irm, *, source: str, mean: Rgb, std: Rgb) -> None:
        """`source`: where it came from; `mean` and `std` are those that PS-ReID's own pixels are normalised by."""
        super().__init__()
        self.source = source
        self.log_scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))
        self._frozen = [irm.eval().requires_grad_(False)]  # in a list: torch does not look for modules there
        image = irm.config.image
        self._size = (image.height_px, image.width_px)
        scale = torch.tensor(std) / torch.tensor(image.std)
        self._scale_3, self._shift_3 = scale, (torch.tensor(mean) - torch.tensor(image.mean)) / torch.tensor(image.std)

    @property
    def irm(self) -> Irm:
        """The model, in evaluation mode."""
        return self._frozen[0]

    @property
    def dim(self) -> int:
        """M."""
        return self.irm.config.image.width

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied with to become logits (a learned inverse temperature, at most 100)."""
        return self.log_scale.exp().clamp(max=100.0)

    @torch.no_grad()
    def embed_persons(self, pixels_B3HW: Tensor) -> Tensor:
        """(B, M) unit vectors of crops."""
        return self._model.gallery_features(self._own_pixels(pixels_B3HW))

    @torch.no_grad()
    def embed_queries(self, pixels_Q3HW: Tensor, asked_Q: Sequence[Asked]) -> Tensor:
        """(Q, M) unit vectors; the pixels of queries by text alone are not looked at."""
        rows_QM = pixels_Q3HW.new_zeros(len(asked_Q), self.dim, dtype=torch.float32)
        for has_picture in (True, False):
            rows = [row for row, asked in enumerate(asked_Q) if asked.has_picture is has_picture]
            if not rows:
                continue
            instructions = self.irm.instruction.prepare([asked_Q[row].instruction for row in rows])
            pixels = self._own_pixels(pixels_Q3HW[rows]) if has_picture else None
            queries = QueryPixels(pixels, instructions.to(pixels_Q3HW.device))
            rows_QM[rows] = self._model.query_features(queries).float()
        return rows_QM

    @property
    def _model(self) -> Irm | IrmPlusPlus:
        return for_retrieval(self.irm)

    def _own_pixels(self, pixels_B3HW: Tensor) -> Tensor:
        """PS-ReID's pixels at the model's size and normalisation; at equal sizes those of the index, to rounding."""
        scale, shift = (values.to(pixels_B3HW).view(3, 1, 1) for values in (self._scale_3, self._shift_3))
        pixels = pixels_B3HW * scale + shift
        if pixels.shape[-2:] != self._size:
            pixels = F.interpolate(pixels, self._size, mode="bilinear", antialias=True, align_corners=False)
        return pixels

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "InstructMetric":
        """Moves and casts the model along, though it is no submodule."""
        super()._apply(fn, recurse)
        self.irm._apply(fn)
        return self
