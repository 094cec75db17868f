"""Person crops and queries as unit vectors of one space: what the index stores and recall compares.

`PersonEncoder` is the protocol; here it is filled by PS-ReID's own vision encoder and metric.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from modeling.instruct_reid.checkpoint import load_irm
from modeling.instruct_reid.encoder import IrmEncoder
from modeling.ps_reid.batches import Processor
from modeling.ps_reid.checkpoint import load_model
from modeling.ps_reid.folder import metric_model, model_identity
from modeling.ps_reid.model import PsReid
from modeling.types import ImageHWC, QueryInput

CROPS_PER_BATCH = 64


class PersonEncoder(Protocol):
    """Anything that embeds persons and queries so that their cosine says how alike they are."""

    identity: str
    """Changes with the weights; an index knows which encoder made it."""
    dim: int

    def embed_persons(self, crops: Sequence[ImageHWC]) -> NDArray[np.float32]:
        """(N, dim) unit vectors of person crops."""
        ...

    def embed_queries(self, queries: Sequence[QueryInput]) -> NDArray[np.float32]:
        """(Q, dim) unit vectors of queries by image, text or both."""
        ...

    def check_query(self, query: QueryInput) -> None:
        """Raises DataError for a query that this encoder cannot embed."""
        ...


class PsReidPersonEncoder:
    """PS-ReID's vision encoder and metric as a person encoder."""

    def __init__(self, model: PsReid, *, identity: str) -> None:
        self.identity = identity
        self.dim = model.config.metric_dim
        self._model = model
        self._processor = Processor(model.config, model.vision, model.template, model.metric)

    def embed_persons(self, crops: Sequence[ImageHWC]) -> NDArray[np.float32]:
        """(N, dim) unit vectors of person crops; (0, dim) for none."""
        blocks = [np.zeros((0, self.dim), dtype=np.float32)]
        with torch.inference_mode():
            for start in range(0, len(crops), CROPS_PER_BATCH):
                pixels = self._processor.crops(crops[start : start + CROPS_PER_BATCH])
                blocks.append(self._model.embed_persons(pixels.to(self._model.device)).float().cpu().numpy())
        return np.concatenate(blocks)

    def embed_queries(self, queries: Sequence[QueryInput]) -> NDArray[np.float32]:
        """(Q, dim) unit vectors; each query is run alone, so that it does not depend on the others."""
        blocks = [np.zeros((0, self.dim), dtype=np.float32)]
        with torch.inference_mode():
            for query in queries:
                batch = self._processor.queries([query]).to(self._model.device)
                blocks.append(self._model.encode_queries(batch).metric_QM.float().cpu().numpy())
        return np.concatenate(blocks)

    def check_query(self, query: QueryInput) -> None:
        """Every query has a picture or a text, which is all that is needed; tasks are not looked at."""


def load_person_encoder(model: str, *, device: str = "cpu") -> PersonEncoder:
    """The person encoder of a saved model, or of the shipped weights of that name: its instruct-ReID metric, if any."""
    if (metric := metric_model(model)) is not None:
        return IrmEncoder(load_irm(metric, device=device), identity=model_identity(model))
    return PsReidPersonEncoder(load_model(model, device=device), identity=model_identity(model))
