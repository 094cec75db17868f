"""Encoded queries of one judging worker, kept up to a budget of bytes; the least recently used go first."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from workflows.ledger import Ledger
from workflows.search.queries import ASKED_COLUMNS, query_input
from workflows.storage import Folder

if TYPE_CHECKING:
    from modeling.judging import EncodedAlone, PairJudge

READ_AT_ONCE = 64  # queries whose pictures are in memory while they are encoded


class QueryCache:
    """Query ids -> encoded queries. A query is read from storage and encoded when it is first asked for."""

    def __init__(self, judge: "PairJudge", *, queries_uri: str, budget_bytes: int) -> None:
        self._judge = judge
        self._folder = Folder(queries_uri)
        self._parts = [part.name for part in Ledger.read(self._folder).parts()]
        self._budget_bytes = budget_bytes
        self._encoded: OrderedDict[str, EncodedAlone] = OrderedDict()
        self._sizes: dict[str, int] = {}
        """Bytes of every query that was ever encoded here."""
        self.num_bytes = 0

    def turns(self, query_ids: Sequence[str]) -> "Iterator[dict[str, EncodedAlone]]":
        """These queries in turns that fit the budget together: one turn when all do, and never less than one query.

        The same queries make the same turns in the same inner order, whatever is at hand: the last bits of a number
        depend on what is computed beside it, and a run that was killed must give what an undisturbed one gives.
        """
        ordered = sorted(query_ids)
        if any(query_id not in self._sizes for query_id in ordered):
            self._measure(ordered)
        turns = self._split(ordered)
        turns.sort(key=lambda turn: sum(query_id not in self._encoded for query_id in turn))  # those at hand first
        for turn in turns:
            encoded = {query_id: self._encoded[query_id] for query_id in turn if query_id in self._encoded}
            missing = [query_id for query_id in turn if query_id not in encoded]
            for query_id in encoded:
                self._encoded.move_to_end(query_id)
            for one in self._encode(missing):
                self._keep(one)
                encoded[one.query_id] = one
            yield {query_id: encoded[query_id] for query_id in turn}

    def _measure(self, query_ids: Sequence[str]) -> None:
        """Encodes those never seen, to know how large they are; what fits stays at hand."""
        unseen = [query_id for query_id in query_ids if query_id not in self._sizes]
        for one in self._encode(unseen):
            self._keep(one)

    def _split(self, query_ids: Sequence[str]) -> list[list[str]]:
        turns: list[list[str]] = []
        turn_bytes = 0
        for query_id in query_ids:
            size = self._sizes[query_id]
            if not turns or turn_bytes + size > self._budget_bytes:
                turns.append([])
                turn_bytes = 0
            turns[-1].append(query_id)
            turn_bytes += size
        return turns

    def _encode(self, query_ids: Sequence[str]) -> "Iterator[EncodedAlone]":
        for start in range(0, len(query_ids), READ_AT_ONCE):
            condition = pc.field("query_id").isin(list(query_ids[start : start + READ_AT_ONCE]))
            for part in self._parts:
                for row in self._folder.read_table(part, ASKED_COLUMNS, condition).to_pylist():
                    yield self._judge.encode_query(query_input(row))

    def _keep(self, encoded: "EncodedAlone") -> None:
        self._encoded[encoded.query_id] = encoded
        self._sizes[encoded.query_id] = encoded.num_bytes
        self.num_bytes += encoded.num_bytes
        while self.num_bytes > self._budget_bytes and len(self._encoded) > 1:
            _, oldest = self._encoded.popitem(last=False)
            self.num_bytes -= oldest.num_bytes
