"""The two passes over the gallery's parts as stages, so that any gallery is scored part by part on Ray.

Knows nothing of Ray. What travels is small: a row for each match, and for each match and part a count.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from modeling.instruct_reid.instructions import Task
from workflows.evaluate_reid.config import Setting
from workflows.evaluate_reid.places import Found, Question, Side, count_before, find_matches, join_found
from workflows.evaluate_reid.questions import questions_of
from workflows.evaluate_reid.sides import read_side
from workflows.ledger import Ledger
from workflows.stages import ShardBatch
from workflows.storage import Folder

FOUND = pa.schema(
    [
        ("setting", pa.string()), ("task", pa.string()), ("query", pa.int64()), ("key", pa.int64()),
        ("score", pa.float32()), ("similarity", pa.float32()),
    ]
)  # fmt: skip
COUNTS = pa.schema([("setting", pa.string()), ("task", pa.string()), ("counts", pa.list_(pa.int64()))])

Asked = dict[tuple[Setting, Task], Question]


class _OverParts:
    """What both passes have: the queries, the questions, and the part of a shard."""

    reads: tuple[str, ...] = ()
    rows_independent = False

    def __init__(
        self, *, features_uri: str, queries_uri: str, settings: Sequence[Setting], tasks: Sequence[Task]
    ) -> None:
        self._features = Folder(features_uri)
        self.queries, self.asked = read_questions(Folder(queries_uri), settings, tasks)

    def gallery(self, batch: ShardBatch) -> tuple[Side, int]:
        """The part's pictures and its place in the gallery."""
        table = self._features.read_table(str(batch.shard.payload["part"]))
        return read_side(table), int(batch.shard.payload["piece"])


class FindMatches(_OverParts):
    """First pass: a features part -> its matches."""

    writes = tuple(FOUND.names)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        gallery, piece = self.gallery(batch)
        tables = [FOUND.empty_table()]
        for (setting, task), question in self.asked.items():
            found = find_matches(question, self.queries, gallery, piece=piece)
            count = len(found.query)
            columns = [[setting] * count, [task] * count, found.query, found.key, found.score, found.similarity]
            tables.append(pa.table(dict(zip(FOUND.names, columns, strict=True)), schema=FOUND))
        return batch.with_table(pa.concat_tables(tables))


class CountBefore(_OverParts):
    """Second pass: a features part -> for each match of the whole gallery, how many of the part stand before it."""

    writes = tuple(COUNTS.names)

    def __init__(self, *, matches_uri: str, **common: Any) -> None:
        super().__init__(**common)
        self._found = read_found(Folder(matches_uri), self.asked)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        gallery, piece = self.gallery(batch)
        rows = [
            {"setting": key[0], "task": key[1], "counts": counts.tolist()}
            for key, question in self.asked.items()
            for counts in [count_before(question, self.queries, gallery, self._found[key], piece=piece)]
        ]
        return batch.with_table(pa.Table.from_pylist(rows, COUNTS))


def read_questions(queries: Folder, settings: Sequence[Setting], tasks: Sequence[Task]) -> tuple[Side, Asked]:
    """The encoded queries, in order of their numbers, and the questions of all settings."""
    table = Ledger.read(queries).read_table().sort_by("number")
    names = table["task"].to_pylist()
    asked: Asked = {
        (setting, question.task): question for setting in settings for question in questions_of(setting, names, tasks)
    }
    return read_side(table), asked


def read_found(matches: Folder, asked: Asked) -> Mapping[tuple[Setting, Task], Found]:
    """All matches by question."""
    table = Ledger.read(matches).read_table()
    labels = np.array(
        [f"{s}/{t}" for s, t in zip(table["setting"].to_pylist(), table["task"].to_pylist(), strict=True)]
    )
    columns = {name: table[name].to_numpy() for name in ("query", "key", "score", "similarity")}
    chosen = {key: labels == f"{key[0]}/{key[1]}" for key in asked}
    return {
        key: join_found([Found(**{name: values[rows] for name, values in columns.items()})])
        for key, rows in chosen.items()
    }


def sum_counts(counts: Folder, asked: Asked) -> Mapping[tuple[Setting, Task], NDArray[np.int64]]:
    """The counts of all parts, by question."""
    totals: dict[tuple[str, str], NDArray[np.int64]] = {}
    ledger = Ledger.read(counts)
    for part in ledger.parts():
        for row in counts.read_table(part.name).to_pylist():
            key = (row["setting"], row["task"])
            own = np.array(row["counts"], dtype=np.int64)
            totals[key] = totals[key] + own if key in totals else own
    return {key: totals.get(key, np.zeros(0, dtype=np.int64)) for key in asked}
