"""Search spaces and their points."""

import math

import pytest

from modeling.errors import ConfigError
from tests.workflows.sweep_training import TOY
from workflows.config import load_config
from workflows.sweep.config import Asha, Range, SweepConfig
from workflows.sweep.space import OptunaPoints, drawn_point, grid_points, point_source, trial_id
from workflows.sweep.step import sweep_identity
from workflows.sweep.trainings import check_points, find_training

TAUS = [0.1, 0.2]


def sweep(**settings: object) -> SweepConfig:
    given = {"train": "toy", "out": "/out", "settings": {}, "space": {"losses": {"tau": TAUS, "reid": [0.5, 1, 2]}}}
    return SweepConfig.model_validate(given | settings)


def test_nested_names_are_paths() -> None:
    assert list(sweep().space) == ["losses.tau", "losses.reid"]
    ranged = sweep(space={"losses": {"tau": {"low": 0.1, "high": 1, "scale": "log"}}}, search="random", trials=3)
    assert ranged.space == {"losses.tau": Range(low=0.1, high=1, scale="log")}


def test_a_grid_is_every_combination() -> None:
    config = sweep()
    points = grid_points(config.space)
    assert config.num_trials == len(points) == 6
    assert {(point["losses.tau"], point["losses.reid"]) for point in points} == {
        (t, r) for t in TAUS for r in (0.5, 1, 2)
    }


def test_a_draw_depends_on_seed_and_number_alone_and_stays_in_range() -> None:
    space = {"a": Range(low=1e-5, high=1e-1, scale="log"), "b": Range(low=1, high=4, integer=True), "c": ["x", "y"]}
    points = [drawn_point(space, seed=3, number=number) for number in range(300)]
    assert points[7] == drawn_point(space, seed=3, number=7)
    assert points[7] != drawn_point(space, seed=4, number=7)
    assert {point["b"] for point in points} == {1, 2, 3, 4}
    assert {point["c"] for point in points} == {"x", "y"}
    logs = [math.log10(float(point["a"])) for point in points]
    assert -5 <= min(logs) < -4.5
    assert -1.5 < max(logs) <= -1
    assert abs(sum(logs) / len(logs) + 3) < 0.25


def test_a_continued_sweep_gets_the_points_that_are_left() -> None:
    config = sweep()
    points = grid_points(config.space)
    source = point_source(config, [(points[1], 0.5, True), (points[4], None, False)])
    left = [source.next() for _ in range(4)]
    assert left == [points[0], points[2], points[3], points[5]]
    assert source.next() is None


def test_a_longer_random_sweep_keeps_its_points() -> None:
    config = sweep(space={"losses.tau": {"low": 0.1, "high": 1.0}}, search="random", trials=4)
    short, long = point_source(config, []), point_source(config.model_copy(update={"trials": 6}), [])
    assert [short.next() for _ in range(4)] == [long.next() for _ in range(4)]
    assert sweep_identity(config, {}) == sweep_identity(config.model_copy(update={"trials": 6}), {})


def test_optuna_finds_the_good_end_and_never_repeats_a_point() -> None:
    config = sweep(space={"losses.tau": {"low": 0.0, "high": 1.0}, "k": [1, 2]}, search="optuna", trials=40, seed=1)
    source = point_source(config, [])
    assert isinstance(source, OptunaPoints)
    tried = []
    for _ in range(40):
        point = source.next()
        assert point is not None
        tried.append(point)
        source.tell(point, -((float(point["losses.tau"]) - 0.8) ** 2))
    late = [float(point["losses.tau"]) for point in tried[25:]]
    assert abs(sum(late) / len(late) - 0.8) < 0.15
    assert len({str(point) for point in tried}) == 40


def test_optuna_stops_when_every_point_is_known() -> None:
    config = sweep(space={"k": [1, 2, 3]}, search="optuna", trials=9)
    source = point_source(config, [({"k": 2}, 0.5, True)])
    found = []
    while (point := source.next()) is not None:
        found.append(point["k"])
        source.tell(point, 0.1)
    assert sorted(found) == [1, 3]


def test_a_continued_optuna_sweep_does_not_begin_again() -> None:
    config = sweep(space={"a": {"low": 0.0, "high": 1.0}}, search="optuna", trials=20)
    first = point_source(config, [])
    begun = [first.next() for _ in range(5)]
    known = [(point, 0.1, True) for point in begun if point is not None]
    assert point_source(config, known).next() not in begun


def test_a_trial_is_named_by_what_decides_it() -> None:
    point = {"losses.tau": 0.1}
    assert trial_id("toy", {"steps": 3}, point) == trial_id("toy", {"steps": 3}, dict(point))
    assert trial_id("toy", {"steps": 3}, point) != trial_id("toy", {"steps": 4}, point)
    assert trial_id("toy", {"steps": 3}, point) != trial_id("toy", {"steps": 3}, {"losses.tau": 0.2})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"space": {}}, "nothing to sweep over"),
        ({"space": {"losses.tau": {"low": 2, "high": 1}}, "search": "random", "trials": 2}, "must be smaller"),
        ({"space": {"losses.tau": {"low": 0, "high": 1, "scale": "log"}}, "search": "random", "trials": 2}, "above 0"),
        ({"space": {"losses.tau": {"low": 0.1, "high": 1}}}, "a grid needs lists"),
        ({"trials": 3}, "no meaning with search `grid`"),
        ({"search": "random"}, "trials is needed"),
        ({"asha": {"grace_steps": 9, "most_steps": 4}}, "grace_steps 9 must be smaller"),
        ({"matric": "x"}, "did you mean metric"),
    ],
)
def test_what_cannot_be_swept_is_refused(settings: dict, says: str) -> None:
    given = {"out": "/o", "settings": {}, "space": {"losses.tau": TAUS}} | settings
    with pytest.raises(ConfigError, match=says):
        load_config(SweepConfig, flags=given)


def test_every_point_is_checked_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"losses.tau=-1.*cannot run.*losses.tau: Input should be greater than 0"):
        check_points(sweep(space={"losses.tau": [0.1, -1.0]}), TOY)
    with pytest.raises(ConfigError, match=r"unknown setting losses.taau; did you mean losses.tau\?"):
        check_points(sweep(space={"losses.taau": [0.1]}), TOY)
    ranged = sweep(space={"losses.tau": {"low": -1.0, "high": 1.0}}, search="random", trials=3)
    with pytest.raises(ConfigError, match=r"losses\.tau=-1"):
        check_points(ranged, TOY)


def test_asha_needs_evaluations_on_the_way() -> None:
    psreid = find_training("psreid")
    asked = sweep(
        train="psreid",
        settings={"frames": ["f"]},
        space={"losses.tau": [0.1]},
        asha={"grace_steps": 5, "most_steps": 20},
    )
    with pytest.raises(ConfigError, match=r"settings.evaluate_every, for example to 5"):
        check_points(asked, psreid)
    check_points(asked.model_copy(update={"settings": {"frames": ["f"], "evaluate_every": 5}}), psreid)


def test_an_unknown_training_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="psreid"):
        find_training("lisa")


def test_asha_needs_room() -> None:
    assert Asha(grace_steps=1, most_steps=9).reduction_factor == 3
