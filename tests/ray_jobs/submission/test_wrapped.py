"""What a submission reads from the commands inside it."""

from pathlib import Path

import pytest

from modeling.errors import ConfigError
from ray_jobs.cli import main
from ray_jobs.submission.identity import Action, decide, job_name
from ray_jobs.submission.wrapped import files_to_carry, read_commands, shared_paths, split_commands

SEARCH = ["search", "s3://b/index", "s3://b/out", "--text", "red coat"]


def names(words: list[str], folder: Path) -> str:
    commands = read_commands(words)
    return job_name(commands, folder, files_to_carry(commands, folder))


def test_a_lone_separator_begins_the_next_command() -> None:
    assert split_commands(["ingest", "a", "--", "index", "--set", "x=1"]) == [
        ["ingest", "a"],
        ["index", "--set", "x=1"],
    ]


def test_remote_places_are_found_in_settings_and_config_file(tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text("frames: s3://b/frames\n")
    command = read_commands([*SEARCH, "--config", str(tmp_path / "search.yaml")])[0]
    assert set(command.remote_places) == {"s3://b/index", "s3://b/out", "s3://b/frames"}


def test_named_files_travel_wherever_the_setting_came_from(tmp_path: Path) -> None:
    for name in ("suspect.jpg", "search.yaml", "other.jpg"):
        (tmp_path / name).write_text("threshold: 1.0")
    words = ["search", "s3://b/index", "s3://b/out", "--set", "image=suspect.jpg"]
    assert files_to_carry(read_commands(words), tmp_path) == [Path("suspect.jpg")]


def test_a_config_file_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("search.yaml").write_text("threshold: 1.0")
    assert files_to_carry(read_commands([*SEARCH, "--config", "search.yaml"]), tmp_path) == [Path("search.yaml")]


@pytest.mark.parametrize("place", ["index", "work/index", "./out"])
def test_a_relative_folder_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match="path of this machine"):
        files_to_carry(read_commands(["search", place, "s3://b/out", "--text", "red coat"]), tmp_path)


def test_a_file_above_the_working_directory_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "suspect.jpg").touch()
    with pytest.raises(ConfigError, match="outside the working directory"):
        files_to_carry(read_commands(["search", "s3://b/i", "s3://b/o", "--image", "../suspect.jpg"]), inside)


def test_absolute_places_are_shared_disks() -> None:
    commands = read_commands(["index", "/data/frames", "s3://b/index"])
    assert shared_paths(commands) == ["/data/frames"]


@pytest.mark.parametrize("words", [[], ["--"], ["submit", "--", "index", "a", "b"], ["jobs", "list"]])
def test_what_cannot_be_a_job_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        read_commands(words)


def test_the_name_follows_settings_not_spelling(tmp_path: Path) -> None:
    name = names([*SEARCH, "--threshold", "1"], tmp_path)
    assert name == names([*SEARCH, "--set", "threshold=1.0"], tmp_path)
    assert name != names(SEARCH, tmp_path)
    assert name.startswith("psreid-search-")


def test_the_name_follows_the_content_of_named_files(tmp_path: Path) -> None:
    words = ["search", "s3://b/index", "s3://b/out", "--image", "suspect.jpg"]
    found = set()
    for content in (b"one", b"another", b"one"):
        (tmp_path / "suspect.jpg").write_bytes(content)
        found.add(names(words, tmp_path))
    assert len(found) == 2


@pytest.mark.parametrize(
    ("statuses", "again", "action", "job_id"),
    [
        ({}, False, Action.SUBMIT, "j"),
        ({"j": "PENDING"}, False, Action.WATCH, "j"),
        ({"j": "RUNNING"}, True, Action.WATCH, "j"),
        ({"j": "SUCCEEDED"}, False, Action.NOTHING, "j"),
        ({"j": "SUCCEEDED"}, True, Action.SUBMIT, "j-2"),
        ({"j": "FAILED"}, False, Action.SUBMIT, "j-2"),
        ({"j": "STOPPED", "j-2": "FAILED"}, False, Action.SUBMIT, "j-3"),
        ({"j": "FAILED", "j-2": "RUNNING"}, False, Action.WATCH, "j-2"),
        ({"j": "FAILED", "j-2": "SUCCEEDED", "other": "RUNNING"}, False, Action.NOTHING, "j-2"),
    ],
)
def test_decisions(statuses: dict[str, str], again: bool, action: Action, job_id: str) -> None:
    decision = decide("j", statuses, again=again)
    assert (decision.action, decision.job_id) == (action, job_id)


def test_everything_after_the_separator_is_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--address", "http://head:8265", "--dry-run", "--", *SEARCH, "--json", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "-- search s3://b/index s3://b/out --text 'red coat' --json --dry-run" in out
    assert "cluster: http://head:8265" in out


def test_a_wrong_command_is_refused_before_anything_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--", *SEARCH, "--set", "treshold=1"]) == 2
    assert "did you mean threshold?" in capsys.readouterr().err
    assert main(["submit"]) == 2
    assert "Write it after `--`" in capsys.readouterr().err
