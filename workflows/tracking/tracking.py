"""A job's way to MLflow: runs with parameters, figures, pictures and models. It never stops or slows the job.

Everything goes through an outbox. What could not be sent is kept in the job's folder and sent first by the next run of
the same command. A run's key lies in its folder too, so that a job that was killed goes on in the run it had.
"""

import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from workflows.storage import Folder
from workflows.tracking import operations as op
from workflows.tracking.client import check_server, connect_client, is_healthy, is_outage
from workflows.tracking.outbox import Delivery, Outbox, first_line

KEY_FILE = "tracking.json"
UNSENT_FILE = "tracking-unsent.json"
FLUSH_S = 30.0  # at the end of a job, for what the server does not have yet

logger = logging.getLogger(__name__)


class Tracking:
    """One process's way to one server; `Tracking.off()` has the same methods and does nothing."""

    def __init__(self, uri: str | None, *, experiment: str = "psreid", folder: Folder | None = None) -> None:
        """`folder` is the job's own: it keeps the key and what was not sent. Does not wait for the server."""
        self.uri, self.experiment, self._folder = uri, experiment, folder
        self._outbox: Outbox | None = None
        self._staging = Path(tempfile.mkdtemp(prefix="psreid-tracking-")) if uri else None
        if uri:
            self._outbox = Outbox(
                lambda: op.Sender(connect_client(uri)), is_outage=is_outage, is_healthy=partial(is_healthy, uri)
            )
            self._send_kept()

    @classmethod
    def off(cls) -> "Tracking":
        """Tracking that was not asked for."""
        return cls(None)

    @classmethod
    def open(cls, uri: str | None, *, experiment: str, folder: Folder) -> "Tracking":
        """Tracking at the start of a job: StorageError when no server answers, which is no accident yet."""
        if uri:
            check_server(uri)
        return cls(uri, experiment=experiment, folder=folder)

    @property
    def is_on(self) -> bool:
        return self._outbox is not None

    def put(self, operation: op.Operation) -> None:
        """Sends an operation some time."""
        if self._outbox is not None:
            self._outbox.put(operation)

    def flush(self, wait_s: float = FLUSH_S) -> bool:
        """Waits until the server has everything, `wait_s` at most, and says whether it has."""
        return self._outbox is None or self._outbox.flush(wait_s)

    def run(
        self,
        name: str,
        *,
        key: str | None = None,
        parent: "TrackedRun | None" = None,
        tags: Mapping[str, str] | None = None,
    ) -> "TrackedRun":
        """Starts a run, or goes on in the one that has the key; by default the key of the job's folder."""
        key = key or (folder_key(self._folder) if self._folder and self.is_on else uuid.uuid4().hex)
        run = TrackedRun(self, key)
        parent_key = parent.key if parent else None
        self.put(op.StartRun(key, self.experiment, name, _now_ms(), parent_key, dict(tags or {})))
        return run

    def stage(self, name: str, data: bytes) -> Path:
        """A local file that lives until tracking is closed and everything was sent."""
        assert self._staging is not None, "staged only while tracking is on"
        path = self._staging / uuid.uuid4().hex[:8] / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        return path

    def close(self, wait_s: float = FLUSH_S) -> list[str]:
        """Sends what is left, `wait_s` at most, and tells in a line or two how it went."""
        if self._outbox is None:
            return []
        delivery = self._outbox.close(wait_s)
        self._outbox = None
        if delivery.unsent:
            self._keep(delivery)
        elif self._staging is not None:
            shutil.rmtree(self._staging, ignore_errors=True)
        return describe(delivery, str(self.uri), self._folder)

    def _send_kept(self) -> None:
        """Puts what an earlier run of this job could not send at the head of the line."""
        if self._folder is None or not self._folder.exists(UNSENT_FILE):
            return
        for operation in op.from_json(self._folder.read_json(UNSENT_FILE)):
            if not isinstance(operation, op.Upload) or Path(operation.path).exists():
                self.put(operation)
        self._folder.remove(UNSENT_FILE)

    def _keep(self, delivery: Delivery) -> None:
        if self._folder is not None:
            self._folder.write_json(UNSENT_FILE, op.to_json(delivery.unsent))


@dataclass(frozen=True)
class TrackedRun:
    """One run; every method returns at once."""

    tracking: Tracking
    key: str

    def parameters(self, values: Mapping[str, str]) -> None:
        if values:
            self.tracking.put(op.Parameters(self.key, dict(values)))

    def figures(self, step: int, values: Mapping[str, float], *, time_ms: int | None = None) -> None:
        """Figures at a step. Given the same `time_ms`, telling it twice adds nothing."""
        now = time_ms or _now_ms()
        points = [(name, float(value), now, step) for name, value in values.items() if _is_number(value)]
        if points:
            self.tracking.put(op.Points(self.key, points))

    def tags(self, values: Mapping[str, str]) -> None:
        self.tracking.put(op.Tags(self.key, dict(values)))

    def data(self, inputs: Sequence[Mapping[str, str]]) -> None:
        """The data that the run reads: name, digest, source."""
        if inputs:
            self.tracking.put(op.Inputs(self.key, [dict(one) for one in inputs]))

    def file(self, name: str, data: bytes, folder: str = "") -> None:
        """Keeps `data` with the run as folder/name."""
        if self.tracking.is_on:
            self.upload(self.tracking.stage(name, data), folder)

    def upload(self, path: Path, folder: str = "") -> None:
        """Keeps a local file or folder with the run; it must stay where it is until tracking is closed."""
        self.tracking.put(op.Upload(self.key, str(path), folder))

    def end(self, status: str = "FINISHED") -> None:
        """FINISHED, FAILED or KILLED."""
        self.tracking.put(op.EndRun(self.key, status, _now_ms()))

    @contextmanager
    def ending(self) -> Iterator["TrackedRun"]:
        """Ends the run with the block: FAILED with the reason when it raises."""
        try:
            yield self
        except BaseException as error:
            self.tags({"psreid.error": first_line(error)})
            self.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        self.end()


def folder_key(folder: Folder) -> str:
    """The key of the job that writes to `folder`, made at its first start."""
    if not folder.exists(KEY_FILE):
        folder.write_json(KEY_FILE, {"key": uuid.uuid4().hex})
    return str(folder.read_json(KEY_FILE)["key"])


def describe(delivery: Delivery, uri: str, folder: Folder | None) -> list[str]:
    """What a person should know of the sending."""
    lines = []
    if delivery.away_s > 1:
        lines.append(f"Tracking: {uri} did not answer for {delivery.away_s:.0f} s; the job went on without it.")
    if delivery.unsent:
        where = f", kept in {folder.path(UNSENT_FILE)} for the next run of the same command" if folder else ""
        lines.append(f"Tracking: {len(delivery.unsent)} items were not sent ({delivery.reason}){where}.")
    if delivery.lost_points:
        lines.append(f"Tracking: {delivery.lost_points} figures were given up, because too many were waiting.")
    if delivery.refused:
        lines.append(f"Tracking: {uri} refused {delivery.refused} items, the first with: {delivery.reason}.")
    return lines or [f"Tracking: {delivery.sent} items are at {uri}."]


def _now_ms() -> int:
    return int(time.time() * 1000)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
