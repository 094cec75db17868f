"""What everything that judges pairs has in common: PS-ReID, its baselines, and a person encoder's cosine."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from modeling.types import PairDecision, QueryInput, TargetInput


class EncodedAlone(Protocol):
    """A query as a judge keeps it."""

    @property
    def query_id(self) -> str: ...

    @property
    def num_bytes(self) -> int:
        """Memory that it holds."""
        ...


class PairJudge(Protocol):
    """Decides whether the queried person is in a frame."""

    def encode_query(self, query: QueryInput) -> EncodedAlone:
        """What is computed once for a query, whatever the frames."""
        ...

    def judge(
        self, queries: Mapping[str, Any], targets: Sequence[TargetInput], pairs: Sequence[tuple[str, int]]
    ) -> list[PairDecision]:
        """Decisions in the order of `pairs`, each a query's id and the number of a target; DataError for unknown ones.

        `queries` are encoded by this very judge.
        """
        ...
