"""Structured logs: one JSON object a line, with the fields of the event."""

import json
import logging
from pathlib import Path

import pytest

from ray_jobs.cli import main
from ray_jobs.logs import JsonFormatter, LogProgress
from tests.workflows.test_watching import tally
from workflows.watching.figures import Committed


@pytest.fixture
def lines() -> list[str]:
    """What the logger `psreid` writes, as the command line sets it up with --log-json."""
    written: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    handler, logger = Keep(), logging.getLogger("psreid")
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield written
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_a_step_is_told_in_events(lines: list[str]) -> None:
    progress = LogProgress()
    progress.start("ingest", total=4, done=1)
    progress.advance(2, rows=20)
    progress.say("two\nlines")
    watched = tally()
    watched.add(Committed(9, 10, {"no_image": 1}, [["Decode", 9, 1.0, 0.0]]), 110.0)
    progress.figures(watched.figures(110.0))
    progress.finish()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["step_started", "said", "figures", "step_ended"]
    assert events[2]["rows_read"] == 10 and events[2]["stages"]["Decode"]["busy_workers"] == pytest.approx(0.1)
    assert (events[3]["done"], events[3]["total"], events[3]["rows"]) == (3, 4, 20)
    assert all({"time", "level", "logger", "message"} <= event.keys() for event in events)


def test_an_exception_becomes_one_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", logging.ERROR, "f", 1, "it %s", ("failed",), _exc_info())
    entry = json.loads(JsonFormatter().format(record))
    assert entry["message"] == "it failed" and "ValueError: broken" in entry["traceback"]


def test_the_command_line_writes_its_errors_as_events_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        assert main(["status", str(tmp_path), "--log-json"]) == 2
        entry = json.loads(capsys.readouterr().err.splitlines()[-1])
        assert entry["level"] == "error" and "holds no step" in entry["message"]
    finally:
        root.handlers[:], logging.getLogger("psreid").level = handlers, logging.NOTSET
        root.setLevel(level)


def _exc_info():
    import sys

    return sys.exc_info()
