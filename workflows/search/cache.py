"""Encoded queries of one judging worker, kept up to a budget of bytes; the least recently used go first."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from workflows.ledger import Ledger
from workflows.search.queries import query_input
from workflows.storage import Folder

if TYPE_CHECKING:
    from modeling.ps_reid.judge import EncodedQuery, Judge

READ_AT_ONCE = 64  # queries whose pictures are in memory while they are encoded


class QueryCache:
    """Query ids -> encoded queries. A query is read from storage and encoded when it is first asked for."""

    def __init__(self, judge: "Judge", *, queries_uri: str, budget_bytes: int) -> None:
        self._judge = judge
        self._folder = Folder(queries_uri)
        self._parts = [part.name for part in Ledger.read(self._folder).parts()]
        self._budget_bytes = budget_bytes
        self._encoded: OrderedDict[str, EncodedQuery] = OrderedDict()
        self.num_bytes = 0

    def turns(self, query_ids: Sequence[str]) -> "Iterator[dict[str, EncodedQuery]]":
        """These queries in turns that fit the budget together: one turn when all do, and never less than one query."""
        turn: dict[str, EncodedQuery] = {}
        turn_bytes = 0
        for encoded in self._encoded_in_order(query_ids):
            if turn and turn_bytes + encoded.num_bytes > self._budget_bytes:
                yield turn
                turn, turn_bytes = {}, 0
            turn[encoded.query_id] = encoded
            turn_bytes += encoded.num_bytes
        if turn:
            yield turn

    def _encoded_in_order(self, query_ids: Sequence[str]) -> "Iterator[EncodedQuery]":
        """Those at hand first, so that what is evicted for the others has been used already."""
        at_hand = [query_id for query_id in query_ids if query_id in self._encoded]
        missing = [query_id for query_id in query_ids if query_id not in self._encoded]
        for query_id in at_hand:
            self._encoded.move_to_end(query_id)
        yield from [self._encoded[query_id] for query_id in at_hand]
        for start in range(0, len(missing), READ_AT_ONCE):
            for encoded in self._encode(missing[start : start + READ_AT_ONCE]):
                self._keep(encoded)
                yield encoded

    def _encode(self, query_ids: Sequence[str]) -> "Iterator[EncodedQuery]":
        condition = pc.field("query_id").isin(list(query_ids))
        for part in self._parts:
            for row in self._folder.read_table(part, ["query_id", "image", "text"], condition).to_pylist():
                yield self._judge.encode_query(query_input(row))

    def _keep(self, encoded: "EncodedQuery") -> None:
        self._encoded[encoded.query_id] = encoded
        self.num_bytes += encoded.num_bytes
        while self.num_bytes > self._budget_bytes and len(self._encoded) > 1:
            _, oldest = self._encoded.popitem(last=False)
            self.num_bytes -= oldest.num_bytes
