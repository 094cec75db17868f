"""The queries as they are asked: whole, by their image alone, or by their text alone. One pass may ask all three."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from workflows.evaluate.benchmark import Benchmark
from workflows.evaluate.config import Modality
from workflows.schema import QUERIES

DROPPED: Mapping[Modality, str | None] = {"both": None, "image": "text", "text": "image"}


@dataclass(frozen=True)
class Question:
    """One query asked in one modality."""

    question_id: str
    """Its query_id in the tables of the run: that of the query, and what is left of it unless it is whole."""
    query_id: str
    modality: Modality


def questions_of(benchmark: Benchmark, modalities: Sequence[Modality]) -> list[Question]:
    """What can be asked: a query without a text is not asked by text."""
    questions = []
    for modality in modalities:
        for query_id, row in benchmark.queries.items():
            if modality == "both" or row[modality]:
                questions.append(Question(_question_id(query_id, modality), query_id, modality))
    return questions


def questions_table(benchmark: Benchmark, questions: Sequence[Question]) -> pa.Table:
    """QUERIES rows, without the spans that are not asked with; what is left of a query asks as its parts allow."""
    rows = []
    for question in questions:
        row = {**benchmark.queries[question.query_id], "query_id": question.question_id}
        dropped = DROPPED[question.modality]
        rows.append(row if dropped is None else {**row, dropped: None, "task": None})
    return pa.Table.from_pylist(rows, QUERIES)


def _question_id(query_id: str, modality: Modality) -> str:
    return query_id if modality == "both" else f"{query_id} by {modality}"
