"""What is left of a query asks as its parts allow, whatever task the whole one has."""

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

from modeling.instruct_reid.instructions import asked_of
from modeling.types import QueryInput
from tests.workflows import small_archive as small
from workflows.evaluate.benchmark import Benchmark
from workflows.evaluate.questions import questions_of, questions_table
from workflows.index.frames import decode_image


def test_a_question_without_its_picture_or_text_has_no_task() -> None:
    query = {**small.query_row("q", "red"), "text": "a man in a red coat", "task": "LI"}
    benchmark = cast(Benchmark, SimpleNamespace(queries={"q": query}))
    questions = questions_of(benchmark, ["both", "image", "text"])
    assert [dataclasses.astuple(question)[0] for question in questions] == ["q", "q by image", "q by text"]
    rows: list[dict[str, Any]] = questions_table(benchmark, questions).to_pylist()
    assert [row["task"] for row in rows] == ["LI", None, None]
    for row in rows:
        image = decode_image(row["image"], what="q") if row["image"] else None
        asked_of(QueryInput(row["query_id"], image, row["text"], task=row["task"]))
