"""The recall's measure as a judge: the best visible person of each frame, whatever is beside it."""

import numpy as np
import pytest

from modeling.errors import DataError
from modeling.instruct_reid.judge import NOBODY, CosineJudge
from modeling.types import QueryInput, TargetInput
from tests.workflows.small_archive import COLOURS, ColourEncoder, colour_vector, query_vector


def _target(name: str, boxes: list[list[float]], colours: list[str]) -> TargetInput:
    image = np.full((30, 60, 3), 90, dtype=np.uint8)
    for box, colour in zip(boxes, colours, strict=True):
        left, top, right, bottom = (int(edge) for edge in box)
        image[top:bottom, left:right] = COLOURS[colour]
    return TargetInput(name, image, np.array(boxes, dtype=np.float32).reshape(-1, 4))


def test_every_pair_gets_its_frames_best_person() -> None:
    judge = CosineJudge(ColourEncoder(), threshold=0.99)
    targets = [
        _target("a", [[0, 0, 10, 20], [20, 0, 30, 20]], ["red", "blue"]),
        _target("b", [], []),
        _target("c", [[70, 0, 80, 20], [5, 5, 15, 25]], ["red", "green"]),  # the first lies beside the picture
        _target("d", [[0, 0, 10, 20]], ["blue"]),
    ]
    queries = {name: judge.encode_query(QueryInput(name, None, f"a {name} coat")) for name in ("red", "blue")}
    pairs = [("blue", 3), ("red", 0), ("blue", 0), ("red", 1), ("red", 2), ("red", 3)]
    decisions = judge.judge(queries, targets, pairs)
    blue, red = (query_vector(QueryInput(n, None, n)) for n in ("blue", "red"))
    swatch = {name: colour_vector(np.full((2, 2, 3), colour, dtype=np.uint8)) for name, colour in COLOURS.items()}
    expected = [1.0, 1.0, 1.0, NOBODY, float(red @ swatch["green"]), float(red @ swatch["blue"])]
    assert float(blue @ swatch["blue"]) == pytest.approx(1.0)
    assert [one.score for one in decisions] == pytest.approx(expected, abs=1e-5)
    assert [one.is_match for one in decisions] == [True, True, True, False, False, False]
    assert [one.prompt.box_xyxy_px.tolist() for one in decisions[1:5]] == [
        [0, 0, 10, 20], [20, 0, 30, 20], [0, 0, 60, 30], [5, 5, 15, 25]
    ]  # fmt: skip
    assert all(one.prompt.embedding.shape == (0,) for one in decisions)


def test_unknown_queries_and_targets_are_named() -> None:
    judge = CosineJudge(ColourEncoder(), threshold=0.5)
    queries = {"red": judge.encode_query(QueryInput("red", None, "a red coat"))}
    target = _target("a", [[0, 0, 10, 20]], ["red"])
    assert judge.judge(queries, [target], []) == []
    (nobody,) = judge.judge(queries, [_target("b", [], [])], [("red", 0)])
    assert nobody.score == NOBODY and not nobody.is_match
    for pair in (("blue", 0), ("red", 1)):
        with pytest.raises(DataError, match="not given"):
            judge.judge(queries, [target], [pair])
