"""Decides by the recall's own measure: is a frame's best person alike enough to the query, as its instruction asks?

The same calls as PS-ReID's judge, for the tasks that it does not know: it would look for the clothes of the query's
picture where an instruction asks for others. It draws no pointer of its own: masks follow from the person's box.

Shapes: Q queries, N persons of a frame, D width of a feature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modeling.errors import DataError
from modeling.ps_reid.person_encoder import PersonEncoder
from modeling.regions import crop
from modeling.types import ImageHWC, MaskPrompt, PairDecision, QueryInput, TargetInput

NOBODY = -1.0
"""The score of a frame without persons: the least cosine there is."""


@dataclass(frozen=True)
class EmbeddedQuery:
    """One query as a unit vector."""

    query_id: str
    vector_D: NDArray[np.float32]

    @property
    def num_bytes(self) -> int:
        return self.vector_D.nbytes


class CosineJudge:
    """A person encoder as a judge: the score of a pair is the cosine of the query and the frame's best person."""

    def __init__(self, encoder: PersonEncoder, *, threshold: float) -> None:
        self._encoder, self.threshold = encoder, threshold

    def encode_query(self, query: QueryInput) -> EmbeddedQuery:
        """Raises DataError when the query lacks what its task needs."""
        return EmbeddedQuery(query.query_id, self._encoder.embed_queries([query])[0])

    def judge(
        self, queries: Mapping[str, EmbeddedQuery], targets: Sequence[TargetInput], pairs: Sequence[tuple[str, int]]
    ) -> list[PairDecision]:
        """Decisions in the order of `pairs`, each a query's id and the number of a target.

        Raises DataError for a pair that names an unknown query or target.
        """
        unknown = [pair for pair in pairs if pair[0] not in queries or not 0 <= pair[1] < len(targets)]
        if unknown:
            raise DataError(f"pairs name queries or targets that were not given, such as {unknown[0]}")
        if not pairs:
            return []
        asked = sorted({number for _, number in pairs})
        shown = [_visible_persons(targets[number]) for number in asked]
        vectors_ND = self._encoder.embed_persons([pixels for _, crops in shown for pixels in crops])
        ends = np.cumsum([len(crops) for _, crops in shown])
        persons = {
            number: (boxes, vectors)
            for number, (boxes, _), vectors in zip(asked, shown, np.split(vectors_ND, ends[:-1]), strict=True)
        }
        return [self._decide(queries[query_id].vector_D, *persons[number]) for query_id, number in pairs]

    def _decide(
        self, query_D: NDArray[np.float32], boxes_N4: NDArray[np.float32], persons_ND: NDArray[np.float32]
    ) -> PairDecision:
        cosines_N = persons_ND @ query_D
        best = int(cosines_N.argmax()) if len(cosines_N) else 0
        score = float(cosines_N[best]) if len(cosines_N) else NOBODY
        no_pointer = np.zeros(0, dtype=np.float32)
        return PairDecision(score, score > self.threshold, MaskPrompt(no_pointer, boxes_N4[best]))


def _visible_persons(target: TargetInput) -> tuple[NDArray[np.float32], list[ImageHWC]]:
    """(N, 4) boxes that cover a pixel, and their crops; the whole frame's box and no crop where there is none."""
    boxes, crops = [], []
    for box in target.boxes_xyxy_px:
        try:
            crops.append(crop(target.image, box))
            boxes.append(box)
        except DataError:
            continue  # a box beside the picture shows nobody; index has set it aside
    if not crops:
        height, width = target.image.shape[:2]
        return np.array([[0, 0, width, height]], dtype=np.float32), []
    return np.stack(boxes).astype(np.float32), crops
