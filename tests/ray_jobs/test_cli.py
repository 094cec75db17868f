"""The command line: where settings come from, what goes to stdout and stderr, exit codes, and a quick `--help`."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modeling.errors import DataError, JobError
from ray_jobs import cli
from ray_jobs.cli import COMMANDS, Command, Plan, Progress, Summary
from workflows.config import StepConfig


class ToyConfig(StepConfig):
    out: str
    """Folder for the output."""
    every: int = 1
    """Keep every n-th."""
    failure: str | None = None
    """How to fail."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out")
    parser.add_argument("--every", type=int, default=None)


def _run(config: ToyConfig, progress: Progress) -> Summary:
    progress.start("toy", total=2, done=1)
    progress.advance(rows=3)
    failures = {
        "data": DataError("the file x is empty. Give another."),
        "job": JobError("too much quarantined"),
        "bug": ValueError("surprise"),
        "stop": KeyboardInterrupt(),
    }
    if config.failure:
        raise failures[config.failure]
    return Summary(f"3 rows in {config.out}", config.out, {"rows": 3, "every": config.every}, details=["a detail"])


def _plan(config: ToyConfig) -> Plan:
    return Plan({"frames": 600, "shards": 12}, expected_s=240.0)


@pytest.fixture(autouse=True)
def toy_command(monkeypatch: pytest.MonkeyPatch) -> None:
    command = Command("synth", "a toy", ToyConfig, _add_arguments, _run, _plan)
    monkeypatch.setattr(cli, "_load", lambda name: command if name == "synth" else None)
    monkeypatch.setattr(cli, "_set_up_output", lambda **_: None)


def test_flags_reach_the_config_and_the_last_line_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["synth", "somewhere", "--every", "5"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["a detail", "3 rows in somewhere"]
    assert "toy" in captured.err  # the progress bar


def test_json_is_one_object_on_the_last_line_of_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["synth", "o", "--json", "--set", "every=7"]) == 0
    assert json.loads(capsys.readouterr().out) == {"headline": "3 rows in o", "output": "o", "rows": 3, "every": 7}


def test_settings_come_from_file_then_flags_then_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("every: 2\n")
    for extra, every in [([], 2), (["--every", "3"], 3), (["--every", "3", "--set", "every=4"], 4)]:
        assert cli.main(["synth", "o", "--json", "--config", str(file), *extra]) == 0
        assert json.loads(capsys.readouterr().out)["every"] == every


def test_a_dry_run_prints_the_plan_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["synth", "o", "--dry-run", "--set", "failure=job"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "frames: 600",
        "shards: 12",
        "expected time: about 4 min. Nothing was run (--dry-run).",
    ]
    assert cli.main(["synth", "o", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"plan": {"frames": 600, "shards": 12}, "expected_s": 240.0}


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        ("data", 2, "error: the file x is empty. Give another."),
        ("job", 1, "error: too much quarantined"),
        ("bug", 1, "ValueError: surprise (run again with --debug for the traceback)"),
        ("stop", 130, "interrupted: run the same command again to continue."),
    ],
)
def test_failures_have_a_code_and_no_traceback(
    failure: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["synth", "o", "--set", f"failure={failure}"]) == code
    captured = capsys.readouterr()
    assert said in captured.err and "Traceback" not in captured.err and captured.out == ""


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["synth", "o", "--debug", "--set", "failure=bug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_json_tells_errors_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["synth", "o", "--json", "--set", "failure=data"]) == 2
    assert json.loads(capsys.readouterr().out) == {"error": "the file x is empty. Give another.", "kind": "DataError"}


def test_unknown_settings_and_options_are_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["synth", "o", "--set", "evry=2"]) == 2
    assert "unknown setting evry; did you mean every?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as refused:
        cli.main(["synth", "o", "--evry", "2"])
    assert refused.value.code == 2
    assert "did you mean --every?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as refused:
        cli.main(["sinth"])
    assert refused.value.code == 2


def test_help_answers_within_a_second_of_processor_time_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, time; from ray_jobs.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'ray', 'torch', 'pandas', 's3fs', 'cv2', 'transformers', 'av'}\n"
        "print(sorted(heavy & set(sys.modules)), time.process_time())"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *usage, last = done.stdout.splitlines()
    heavy, seconds = last.rsplit(" ", 1)
    assert heavy == "[]"
    assert float(seconds) < 1.0, f"{seconds} s of processor time, {time.monotonic() - started:.1f} s in all"
    assert any("doctor" in line for line in usage)


def test_every_listed_command_has_a_module() -> None:
    folder = Path(cli.__file__).parent / "commands"
    modules = {path.stem.removesuffix("_").replace("_", "-") for path in folder.glob("[!_]*.py")}
    assert modules <= set(COMMANDS)
