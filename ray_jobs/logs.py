"""Logs for machines: one JSON object a line on stderr, from the same events that people see as a bar and as lines."""

import datetime
import json
import logging
import time

from workflows.progress import Progress
from workflows.watching.figures import StepFigures

ADVANCE_EVERY_S = 15.0  # between two events that only count shards

logger = logging.getLogger("psreid")


class JsonFormatter(logging.Formatter):
    """`time` (ISO 8601, UTC), `level`, `logger`, `message`, and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        entry = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


class LogProgress(Progress):
    """Every event of a step as a log record with fields."""

    def __init__(self) -> None:
        self._what, self._unit = "", "shard"
        self._done = self._total = self._rows = 0
        self._said_s = 0.0

    def start(self, what: str, *, total: int, done: int = 0, unit: str = "shard") -> None:
        self._what, self._unit, self._total, self._done, self._rows = what, unit, total, done, 0
        self._said_s = time.monotonic()
        self._log("step_started", f"{what}: {done} of {total} {unit}s are done")

    def advance(self, count: int = 1, *, rows: int = 0) -> None:
        self._done += count
        self._rows += rows
        if time.monotonic() - self._said_s >= ADVANCE_EVERY_S:
            self._said_s = time.monotonic()
            self._log("step_advanced", f"{self._what}: {self._done} of {self._total} {self._unit}s")

    def say(self, line: str) -> None:
        logger.info(line, extra={"fields": {"event": "said"}})

    def figures(self, figures: StepFigures) -> None:
        logger.info(figures.line(), extra={"fields": {"event": "figures", **figures.plain()}})

    def finish(self) -> None:
        if self._what:
            self._log("step_ended", f"{self._what}: {self._done} of {self._total} {self._unit}s")
            self._what = ""

    def _log(self, event: str, message: str) -> None:
        counts = {"total": self._total, "done": self._done, "rows": self._rows}
        logger.info(message, extra={"fields": {"event": event, "step": self._what, "unit": self._unit, **counts}})
