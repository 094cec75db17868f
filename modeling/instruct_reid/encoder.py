"""A saved IRM or IRM++ behind plain pictures and instructions: what evaluation, index and search call.

Shapes: N pictures; Q queries; D length of a feature; I width of the instruction encoder.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from modeling.backbones.clip import resize_image
from modeling.instruct_reid.checkpoint import for_retrieval, load_irm
from modeling.instruct_reid.instructions import Instruction, asked_of
from modeling.instruct_reid.irm import Irm, QueryPixels
from modeling.ps_reid.folder import model_identity
from modeling.types import ImageHWC, QueryInput

Floats = NDArray[np.float32]
PICTURES_PER_BATCH = 64


class IrmEncoder:
    """Also a `PersonEncoder`: persons are gallery pictures without a task, queries ask as their parts allow."""

    def __init__(self, irm: Irm, *, identity: str) -> None:
        self.identity, self.dim = identity, irm.config.image.width
        self._irm, self._model = irm, for_retrieval(irm)
        image = irm.config.image
        self._size = (image.height_px, image.width_px)
        self._mean, self._std = (torch.tensor(values).view(3, 1, 1) for values in (image.mean, image.std))

    @torch.inference_mode()
    def gallery(self, images: Sequence[ImageHWC], instructions: Sequence[Instruction] | None = None) -> Floats:
        """(N, D) unit vectors; with an instruction for each picture in the task-specific setting."""
        batch = None if instructions is None else self._irm.instruction.prepare(instructions).to(self._device)
        return _numpy(self._model.gallery_features(self._pixels(images), batch))

    @torch.inference_mode()
    def queries(self, images: Sequence[ImageHWC | None], instructions: Sequence[Instruction]) -> Floats:
        """(Q, D) unit vectors; each query is run alone, so that it does not depend on the others."""
        rows = [np.zeros((0, self.dim), dtype=np.float32)]
        for image, instruction in zip(images, instructions, strict=True):
            batch = self._irm.instruction.prepare([instruction]).to(self._device)
            pixels = None if image is None else self._pixels([image])
            rows.append(_numpy(self._model.query_features(QueryPixels(pixels, batch))))
        return np.concatenate(rows)

    @torch.inference_mode()
    def instructions(self, instructions: Sequence[Instruction]) -> Floats:
        """(N, I) unit vectors F_T, whose cosine says how alike two instructions are (eq. 2 and 8)."""
        rows = [np.zeros((0, self._irm.config.instruction.width), dtype=np.float32)]
        for start in range(0, len(instructions), PICTURES_PER_BATCH):
            batch = self._irm.instruction.prepare(instructions[start : start + PICTURES_PER_BATCH])
            tokens = self._irm.encode_instructions(batch.to(self._device))
            rows.append(_numpy(F.normalize(tokens.feature_BI, dim=1)))
        return np.concatenate(rows)

    def embed_persons(self, crops: Sequence[ImageHWC]) -> Floats:
        """(N, D) unit vectors of person crops, for the index; (0, D) for none."""
        blocks = [np.zeros((0, self.dim), dtype=np.float32)]
        for start in range(0, len(crops), PICTURES_PER_BATCH):
            blocks.append(self.gallery(crops[start : start + PICTURES_PER_BATCH]))
        return np.concatenate(blocks)

    def embed_queries(self, queries: Sequence[QueryInput]) -> Floats:
        """(Q, D) unit vectors, each asking as `asked_of` says."""
        asked = [asked_of(query) for query in queries]
        return self.queries([image for image, _ in asked], [instruction for _, instruction in asked])

    def check_query(self, query: QueryInput) -> None:
        """Raises DataError when the query lacks what its task needs."""
        asked_of(query)

    @property
    def _device(self) -> torch.device:
        return self._irm.text_to_image.weight.device

    def _pixels(self, images: Sequence[ImageHWC]) -> Tensor:
        height, width = self._size
        scaled = [resize_image(image, height=height, width=width) for image in images]
        return ((torch.stack(scaled) / 255 - self._mean) / self._std).to(self._device)


def load_irm_encoder(model: str, *, device: str = "cpu") -> IrmEncoder:
    """The encoder of a saved model, or of the shipped weights of that name."""
    return IrmEncoder(load_irm(model, device=device), identity=model_identity(model))


def _numpy(features: Tensor) -> Floats:
    return features.float().cpu().numpy()
