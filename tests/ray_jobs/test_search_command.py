"""The command lines of index and search become the configs they should."""

import argparse

import pytest

from ray_jobs.commands import index, search


def parse(command: object, *arguments: str) -> dict:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)  # type: ignore[attr-defined]
    return {key: value for key, value in vars(parser.parse_args(arguments)).items() if value is not None}


def test_three_folders_are_index_queries_out() -> None:
    assert parse(search.COMMAND, "i", "q", "o") == {"index": "i", "queries": "q", "out": "o"}
    assert parse(search.COMMAND, "--recall", "none", "i", "q", "o")["queries"] == "q"
    assert parse(search.COMMAND, "i", "--shortlist-size", "9", "q", "o") == {
        "index": "i",
        "queries": "q",
        "out": "o",
        "shortlist_size": 9,
    }


def test_two_folders_are_index_out_with_the_query_in_flags() -> None:
    assert parse(search.COMMAND, "i", "o", "--image", "a.jpg", "--text", "red coat") == {
        "index": "i",
        "out": "o",
        "image": "a.jpg",
        "text": "red coat",
    }
    assert parse(search.COMMAND, "i", "o", "--frame", "c/v#1", "--box", "1,2,3,4.5")["box"] == (1.0, 2.0, 3.0, 4.5)


def test_every_flag_is_a_setting() -> None:
    for command in (index.COMMAND, search.COMMAND):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        known = set(command.config_class.model_fields)
        assert {action.dest for action in parser._actions} - {"help"} <= known


def test_a_box_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(search.COMMAND, "i", "o", "--frame", "f", "--box", "1,2")
    assert "left,top,width,height" in capsys.readouterr().err


def test_the_report_can_be_left_out() -> None:
    assert parse(search.COMMAND, "i", "q", "o", "--no-report")["report"] is False
    assert "report" not in parse(search.COMMAND, "i", "q", "o")
